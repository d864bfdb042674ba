package linux

// Flags of open(2) on x86-64 (include/uapi/asm-generic/fcntl.h).
const (
	O_RDONLY    = 0
	O_WRONLY    = 1
	O_RDWR      = 2
	O_ACCMODE   = 3
	O_CREAT     = 0o100
	O_EXCL      = 0o200
	O_NOCTTY    = 0o400
	O_TRUNC     = 0o1000
	O_APPEND    = 0o2000
	O_NONBLOCK  = 0o4000
	O_DSYNC     = 0o10000
	O_ASYNC     = 0o20000
	O_DIRECT    = 0o40000
	O_LARGEFILE = 0o100000
	O_DIRECTORY = 0o200000
	O_NOFOLLOW  = 0o400000
	O_NOATIME   = 0o1000000
	O_CLOEXEC   = 0o2000000
	O_SYNC      = 0o4000000 | O_DSYNC
	O_PATH      = 0o10000000
	O_TMPFILE   = 0o20000000 | O_DIRECTORY
)

// The AT_* values of the *at calls (include/uapi/linux/fcntl.h).
const (
	AT_FDCWD            = -100
	AT_SYMLINK_NOFOLLOW = 0x100
	AT_EACCESS          = 0x200
	AT_REMOVEDIR        = 0x200
	AT_SYMLINK_FOLLOW   = 0x400
	AT_NO_AUTOMOUNT     = 0x800
	AT_EMPTY_PATH       = 0x1000
	AT_STATX_SYNC_TYPE  = 0x6000
)

// Bits of openat2(2)'s resolve (include/uapi/linux/openat2.h).
const (
	RESOLVE_NO_XDEV       = 0x01
	RESOLVE_NO_MAGICLINKS = 0x02
	RESOLVE_NO_SYMLINKS   = 0x04
	RESOLVE_BENEATH       = 0x08
	RESOLVE_IN_ROOT       = 0x10
	RESOLVE_CACHED        = 0x20
)

// OpenHow is struct open_how.
type OpenHow struct{ Flags, Mode, Resolve uint64 }

// Bits of a file's mode (include/uapi/linux/stat.h).
const (
	S_IFMT   = 0o170000
	S_IFSOCK = 0o140000
	S_IFLNK  = 0o120000
	S_IFREG  = 0o100000
	S_IFBLK  = 0o060000
	S_IFDIR  = 0o040000
	S_IFCHR  = 0o020000
	S_IFIFO  = 0o010000
	S_ISUID  = 0o4000
	S_ISGID  = 0o2000
	S_ISVTX  = 0o1000
	S_IXGRP  = 0o010
)

// Types of directory entries (include/linux/fs_types.h); DT_x is S_IFx >> 12.
const (
	DT_UNKNOWN = 0
	DT_FIFO    = 1
	DT_CHR     = 2
	DT_DIR     = 4
	DT_BLK     = 6
	DT_REG     = 8
	DT_LNK     = 10
	DT_SOCK    = 12
)

// Origins of lseek(2) (include/uapi/linux/fs.h).
const (
	SEEK_SET  = 0
	SEEK_CUR  = 1
	SEEK_END  = 2
	SEEK_DATA = 3
	SEEK_HOLE = 4
)

// Commands of fcntl(2) (include/uapi/asm-generic/fcntl.h, linux/fcntl.h).
const (
	F_DUPFD         = 0
	F_GETFD         = 1
	F_SETFD         = 2
	F_GETFL         = 3
	F_SETFL         = 4
	F_GETLK         = 5
	F_SETLK         = 6
	F_SETLKW        = 7
	F_SETOWN        = 8
	F_GETOWN        = 9
	F_SETSIG        = 10
	F_GETSIG        = 11
	F_SETOWN_EX     = 15
	F_GETOWN_EX     = 16
	F_OFD_GETLK     = 36
	F_OFD_SETLK     = 37
	F_OFD_SETLKW    = 38
	F_SETLEASE      = 1024
	F_GETLEASE      = 1025
	F_NOTIFY        = 1026
	F_DUPFD_CLOEXEC = 1030
	F_SETPIPE_SZ    = 1031
	F_GETPIPE_SZ    = 1032
	F_ADD_SEALS     = 1033
	F_GET_SEALS     = 1034

	FD_CLOEXEC = 1

	F_RDLCK = 0
	F_WRLCK = 1
	F_UNLCK = 2
)

// Seals of a memfd (include/uapi/linux/fcntl.h).
const (
	F_SEAL_SEAL         = 0x01
	F_SEAL_SHRINK       = 0x02
	F_SEAL_GROW         = 0x04
	F_SEAL_WRITE        = 0x08
	F_SEAL_FUTURE_WRITE = 0x10
	F_SEAL_EXEC         = 0x20
)

// Flags of memfd_create(2) (include/uapi/linux/memfd.h).
const (
	MFD_CLOEXEC       = 0x1
	MFD_ALLOW_SEALING = 0x2
	MFD_HUGETLB       = 0x4
	MFD_NOEXEC_SEAL   = 0x8
	MFD_EXEC          = 0x10
)

// Flock is struct flock.
type Flock struct {
	Type, Whence int16
	_            int32
	Start, Len   int64
	PID          int32
	_            int32
}

// Operations of flock(2).
const (
	LOCK_SH = 1
	LOCK_EX = 2
	LOCK_NB = 4
	LOCK_UN = 8
)

// Bits of access(2).
const (
	F_OK = 0
	X_OK = 1
	W_OK = 2
	R_OK = 4
)

// Flags of renameat2(2), close_range(2), fallocate(2), setxattr(2), splice(2).
const (
	RENAME_NOREPLACE = 1
	RENAME_EXCHANGE  = 2
	RENAME_WHITEOUT  = 4

	CLOSE_RANGE_UNSHARE = 2
	CLOSE_RANGE_CLOEXEC = 4

	FALLOC_FL_KEEP_SIZE      = 0x01
	FALLOC_FL_PUNCH_HOLE     = 0x02
	FALLOC_FL_COLLAPSE_RANGE = 0x08
	FALLOC_FL_ZERO_RANGE     = 0x10
	FALLOC_FL_INSERT_RANGE   = 0x20
	FALLOC_FL_UNSHARE_RANGE  = 0x40

	XATTR_CREATE   = 1
	XATTR_REPLACE  = 2
	XATTR_NAME_MAX = 255
	XATTR_SIZE_MAX = 65536
	XATTR_LIST_MAX = 65536

	SPLICE_F_MOVE     = 1
	SPLICE_F_NONBLOCK = 2
	SPLICE_F_MORE     = 4
	SPLICE_F_GIFT     = 8

	RWF_HIPRI  = 0x01
	RWF_DSYNC  = 0x02
	RWF_SYNC   = 0x04
	RWF_NOWAIT = 0x08
	RWF_APPEND = 0x10

	POSIX_FADV_NORMAL     = 0
	POSIX_FADV_RANDOM     = 1
	POSIX_FADV_SEQUENTIAL = 2
	POSIX_FADV_WILLNEED   = 3
	POSIX_FADV_DONTNEED   = 4
	POSIX_FADV_NOREUSE    = 5

	SYNC_FILE_RANGE_WAIT_BEFORE = 1
	SYNC_FILE_RANGE_WRITE       = 2
	SYNC_FILE_RANGE_WAIT_AFTER  = 4

	UTIME_NOW  = 0x3fffffff
	UTIME_OMIT = 0x3ffffffe
)

// Limits of paths and files (include/uapi/linux/limits.h, include/linux/fs.h).
const (
	NAME_MAX      = 255
	PATH_MAX      = 4096
	MAXSYMLINKS   = 40
	IOV_MAX       = 1024
	MAX_RW_COUNT  = 0x7ffff000
	MAX_LFS_BYTES = 1<<63 - 1
)

// Events and flags of inotify(7) (include/uapi/linux/inotify.h).
const (
	IN_ACCESS        = 0x001
	IN_MODIFY        = 0x002
	IN_ATTRIB        = 0x004
	IN_CLOSE_WRITE   = 0x008
	IN_CLOSE_NOWRITE = 0x010
	IN_OPEN          = 0x020
	IN_MOVED_FROM    = 0x040
	IN_MOVED_TO      = 0x080
	IN_CREATE        = 0x100
	IN_DELETE        = 0x200
	IN_DELETE_SELF   = 0x400
	IN_MOVE_SELF     = 0x800
	IN_ALL_EVENTS    = 0xfff
	IN_UNMOUNT       = 0x2000
	IN_Q_OVERFLOW    = 0x4000
	IN_IGNORED       = 0x8000
	IN_ONLYDIR       = 0x01000000
	IN_DONT_FOLLOW   = 0x02000000
	IN_EXCL_UNLINK   = 0x04000000
	IN_MASK_CREATE   = 0x10000000
	IN_MASK_ADD      = 0x20000000
	IN_ISDIR         = 0x40000000
	IN_ONESHOT       = 0x80000000
	IN_CLOEXEC       = O_CLOEXEC
	IN_NONBLOCK      = O_NONBLOCK
)

// Ioctls that files of all kinds know (include/uapi/asm-generic/ioctls.h).
const (
	FIONREAD = 0x541b
	FIONBIO  = 0x5421
	FIONCLEX = 0x5450
	FIOCLEX  = 0x5451
	FIOASYNC = 0x5452
	FIOQSIZE = 0x5460
)

// Stat is struct stat.
type Stat struct {
	Dev, Ino, Nlink     uint64
	Mode, UID, GID, _   uint32
	Rdev                uint64
	Size, Blksize       int64
	Blocks              int64
	Atime, Mtime, Ctime Timespec
	_                   [3]int64
}

// StatxTimestamp is struct statx_timestamp.
type StatxTimestamp struct {
	Sec  int64
	Nsec uint32
	_    int32
}

// Statx is struct statx.
type Statx struct {
	Mask, Blksize               uint32
	Attributes                  uint64
	Nlink, UID, GID             uint32
	Mode, _                     uint16
	Ino, Size, Blocks           uint64
	AttributesMask              uint64
	Atime, Btime, Ctime, Mtime  StatxTimestamp
	RdevMajor, RdevMinor        uint32
	DevMajor, DevMinor          uint32
	MntID                       uint64
	DioMemAlign, DioOffsetAlign uint32
	_                           [12]uint64
}

// Bits of statx(2) (include/uapi/linux/stat.h).
const (
	STATX_TYPE        = 0x001
	STATX_MODE        = 0x002
	STATX_NLINK       = 0x004
	STATX_UID         = 0x008
	STATX_GID         = 0x010
	STATX_ATIME       = 0x020
	STATX_MTIME       = 0x040
	STATX_CTIME       = 0x080
	STATX_INO         = 0x100
	STATX_SIZE        = 0x200
	STATX_BLOCKS      = 0x400
	STATX_BASIC_STATS = 0x7ff
	STATX_BTIME       = 0x800
	STATX_MNT_ID      = 0x1000
	STATX__RESERVED   = 0x80000000

	STATX_ATTR_MOUNT_ROOT = 0x2000
)

// Statfs is struct statfs.
type Statfs struct {
	Type, Bsize           int64
	Blocks, Bfree, Bavail uint64
	Files, Ffree          uint64
	FSID                  [2]int32
	Namelen, Frsize       int64
	Flags                 int64
	_                     [4]int64
}

// File system types (include/uapi/linux/magic.h) and mount flags of statfs(2).
const (
	TMPFS_MAGIC      = 0x01021994
	PROC_SUPER_MAGIC = 0x9fa0
	SYSFS_MAGIC      = 0x62656572
	DEVPTS_MAGIC     = 0x1cd1
	PIPEFS_MAGIC     = 0x50495045
	SOCKFS_MAGIC     = 0x534f434b
	ANON_INODE_MAGIC = 0x09041934

	ST_RDONLY   = 0x0001
	ST_NOSUID   = 0x0002
	ST_NODEV    = 0x0004
	ST_NOEXEC   = 0x0008
	ST_VALID    = 0x0020
	ST_NOATIME  = 0x0400
	ST_RELATIME = 0x1000
)

// Flags of mount(2) and umount2(2) (include/uapi/linux/mount.h).
const (
	MS_RDONLY      = 1
	MS_NOSUID      = 2
	MS_NODEV       = 4
	MS_NOEXEC      = 8
	MS_SYNCHRONOUS = 16
	MS_REMOUNT     = 32
	MS_NOATIME     = 1024
	MS_NODIRATIME  = 2048
	MS_BIND        = 4096
	MS_MOVE        = 8192
	MS_REC         = 16384
	MS_SILENT      = 32768
	MS_UNBINDABLE  = 1 << 17
	MS_PRIVATE     = 1 << 18
	MS_SLAVE       = 1 << 19
	MS_SHARED      = 1 << 20
	MS_RELATIME    = 1 << 21
	MS_STRICTATIME = 1 << 24
	MNT_FORCE      = 1
	MNT_DETACH     = 2
	MNT_EXPIRE     = 4

	UMOUNT_NOFOLLOW = 8
)

// FOwnerEx is struct f_owner_ex.
type FOwnerEx struct{ Type, PID int32 }

// Kinds of owners.
const (
	F_OWNER_TID  = 0
	F_OWNER_PID  = 1
	F_OWNER_PGRP = 2
)
