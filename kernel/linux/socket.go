package linux

// Families, types and flags of sockets (socket(2), include/linux/socket.h).
const (
	AF_UNSPEC  = 0x0
	AF_UNIX    = 0x1
	AF_INET    = 0x2
	AF_INET6   = 0xa
	AF_NETLINK = 0x10
	AF_PACKET  = 0x11

	SOCK_STREAM    = 0x1
	SOCK_DGRAM     = 0x2
	SOCK_RAW       = 0x3
	SOCK_RDM       = 0x4
	SOCK_SEQPACKET = 0x5
	SOCK_CLOEXEC   = 0x80000
	SOCK_NONBLOCK  = 0x800

	SHUT_RD   = 0x0
	SHUT_WR   = 0x1
	SHUT_RDWR = 0x2

	SOMAXCONN = 0x1000
)

// Options of SOL_SOCKET (socket(7), include/uapi/asm-generic/socket.h).
const (
	SOL_SOCKET = 0x1

	SO_DEBUG         = 0x1
	SO_REUSEADDR     = 0x2
	SO_TYPE          = 0x3
	SO_ERROR         = 0x4
	SO_DONTROUTE     = 0x5
	SO_BROADCAST     = 0x6
	SO_SNDBUF        = 0x7
	SO_RCVBUF        = 0x8
	SO_KEEPALIVE     = 0x9
	SO_OOBINLINE     = 0xa
	SO_NO_CHECK      = 0xb
	SO_PRIORITY      = 0xc
	SO_LINGER        = 0xd
	SO_BSDCOMPAT     = 0xe
	SO_REUSEPORT     = 0xf
	SO_PASSCRED      = 0x10
	SO_PEERCRED      = 0x11
	SO_RCVLOWAT      = 0x12
	SO_SNDLOWAT      = 0x13
	SO_RCVTIMEO      = 0x14
	SO_SNDTIMEO      = 0x15
	SO_BINDTODEVICE  = 0x19
	SO_ATTACH_FILTER = 0x1a
	SO_PEERNAME      = 0x1c
	SO_TIMESTAMP     = 0x1d
	SO_ACCEPTCONN    = 0x1e
	SO_PEERSEC       = 0x1f
	SO_SNDBUFFORCE   = 0x20
	SO_RCVBUFFORCE   = 0x21
	SO_PASSSEC       = 0x22
	SO_MARK          = 0x24
	SO_PROTOCOL      = 0x26
	SO_DOMAIN        = 0x27
	SO_RXQ_OVFL      = 0x28
	SO_PEEK_OFF      = 0x2a
	SO_INCOMING_CPU  = 0x31
	SO_COOKIE        = 0x39
	SO_PEERGROUPS    = 0x3b
	SO_RCVTIMEO_NEW  = 0x42
	SO_SNDTIMEO_NEW  = 0x43
	SO_PASSPIDFD     = 0x4c
	SO_PEERPIDFD     = 0x4d
)

// Control messages and flags of messages (unix(7), send(2), recv(2)).
const (
	SCM_RIGHTS      = 0x1
	SCM_CREDENTIALS = 0x2

	MSG_OOB          = 0x1
	MSG_PEEK         = 0x2
	MSG_DONTROUTE    = 0x4
	MSG_CTRUNC       = 0x8
	MSG_TRUNC        = 0x20
	MSG_DONTWAIT     = 0x40
	MSG_EOR          = 0x80
	MSG_WAITALL      = 0x100
	MSG_CONFIRM      = 0x800
	MSG_ERRQUEUE     = 0x2000
	MSG_NOSIGNAL     = 0x4000
	MSG_MORE         = 0x8000
	MSG_WAITFORONE   = 0x10000
	MSG_FASTOPEN     = 0x20000000
	MSG_CMSG_CLOEXEC = 0x40000000
)

// UIO_MAXIOV is how many ranges a message may have, UNIX_PATH_MAX how long a name in struct sockaddr_un is, SCM_MAX_FD how
// many files one message carries.
const (
	UIO_MAXIOV    = 1024
	UNIX_PATH_MAX = 108
	SCM_MAX_FD    = 253
)

// Ioctls of sockets (include/uapi/asm-generic/sockios.h). SIOCINQ is FIONREAD, SIOCOUTQ is TIOCOUTQ.
const SIOCATMARK = 0x8905

// Ucred is struct ucred.
type Ucred struct {
	PID      int32
	UID, GID uint32
}

// Msghdr is struct user_msghdr.
type Msghdr struct {
	Name       uint64
	NameLen    int32
	_          int32
	Iov        uint64
	IovLen     uint64
	Control    uint64
	ControlLen uint64
	Flags      uint32
	_          int32
}

// Cmsghdr is struct cmsghdr; control messages are aligned to 8 bytes.
type Cmsghdr struct {
	Len         uint64
	Level, Type int32
}

// Linger is struct linger.
type Linger struct{ OnOff, Linger int32 }
