package linux

// Events and flags of epoll (epoll_ctl(2)). EPOLLIN, EPOLLOUT and EPOLLET are elsewhere in this package.
const (
	EPOLLPRI       = 0x2
	EPOLLERR       = 0x8
	EPOLLHUP       = 0x10
	EPOLLRDNORM    = 0x40
	EPOLLRDBAND    = 0x80
	EPOLLWRNORM    = 0x100
	EPOLLWRBAND    = 0x200
	EPOLLMSG       = 0x400
	EPOLLRDHUP     = 0x2000
	EPOLLEXCLUSIVE = 0x10000000
	EPOLLWAKEUP    = 0x20000000
	EPOLLONESHOT   = 0x40000000

	EPOLL_CLOEXEC = 0x80000
)

// Flags of eventfd2(2), timerfd_create(2), timerfd_settime(2) and signalfd4(2). EFD_SEMAPHORE is elsewhere in this package.
const (
	EFD_CLOEXEC  = 0x80000
	EFD_NONBLOCK = 0x800

	TFD_CLOEXEC             = 0x80000
	TFD_NONBLOCK            = 0x800
	TFD_TIMER_ABSTIME       = 0x1
	TFD_TIMER_CANCEL_ON_SET = 0x2

	SFD_CLOEXEC  = 0x80000
	SFD_NONBLOCK = 0x800
)

// TFD_IOC_SET_TICKS is an ioctl of a timerfd (include/uapi/linux/timerfd.h).
const TFD_IOC_SET_TICKS = 0x40085400

// PollFD is struct pollfd.
type PollFD struct {
	FD              int32
	Events, Revents int16
}

// SignalfdSiginfo is struct signalfd_siginfo.
type SignalfdSiginfo struct {
	Signo              uint32
	Errno, Code        int32
	PID, UID           uint32
	FD                 int32
	TID, Band, Overrun uint32
	Trapno             uint32
	Status, Int        int32
	Ptr                uint64
	Utime, Stime       uint64
	Addr               uint64
	AddrLSB            uint16
	_                  uint16
	Syscall            int32
	CallAddr           uint64
	Arch               uint32
	_                  [28]byte
}

// FD_SETSIZE is how many descriptors a select(2) of the C library can name; the kernel has no such limit.
const FD_SETSIZE = 1024
