package linux

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the Go distribution has of the constants of files, which it generates from Linux' headers.
func TestFileConstants(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want int64
	}{
		{"O_CREAT", O_CREAT, syscall.O_CREAT}, {"O_EXCL", O_EXCL, syscall.O_EXCL}, {"O_NOCTTY", O_NOCTTY, syscall.O_NOCTTY},
		{"O_TRUNC", O_TRUNC, syscall.O_TRUNC}, {"O_APPEND", O_APPEND, syscall.O_APPEND}, {"O_NONBLOCK", O_NONBLOCK, syscall.O_NONBLOCK},
		{"O_DSYNC", O_DSYNC, syscall.O_DSYNC}, {"O_ASYNC", O_ASYNC, syscall.O_ASYNC}, {"O_DIRECT", O_DIRECT, syscall.O_DIRECT},
		{"O_DIRECTORY", O_DIRECTORY, syscall.O_DIRECTORY}, {"O_NOFOLLOW", O_NOFOLLOW, syscall.O_NOFOLLOW}, {"O_NOATIME", O_NOATIME, syscall.O_NOATIME},
		{"O_CLOEXEC", O_CLOEXEC, syscall.O_CLOEXEC}, {"O_SYNC", O_SYNC, syscall.O_SYNC},
		{"S_IFMT", S_IFMT, syscall.S_IFMT}, {"S_IFSOCK", S_IFSOCK, syscall.S_IFSOCK}, {"S_IFLNK", S_IFLNK, syscall.S_IFLNK}, {"S_IFREG", S_IFREG, syscall.S_IFREG},
		{"S_IFBLK", S_IFBLK, syscall.S_IFBLK}, {"S_IFDIR", S_IFDIR, syscall.S_IFDIR}, {"S_IFCHR", S_IFCHR, syscall.S_IFCHR}, {"S_IFIFO", S_IFIFO, syscall.S_IFIFO},
		{"S_ISUID", S_ISUID, syscall.S_ISUID}, {"S_ISGID", S_ISGID, syscall.S_ISGID}, {"S_ISVTX", S_ISVTX, syscall.S_ISVTX},
		{"DT_DIR", DT_DIR, syscall.DT_DIR}, {"DT_LNK", DT_LNK, syscall.DT_LNK}, {"DT_REG", DT_REG, syscall.DT_REG}, {"DT_SOCK", DT_SOCK, syscall.DT_SOCK},
		{"F_DUPFD", F_DUPFD, syscall.F_DUPFD}, {"F_SETLKW", F_SETLKW, syscall.F_SETLKW}, {"F_GETLK", F_GETLK, syscall.F_GETLK}, {"F_SETOWN", F_SETOWN, syscall.F_SETOWN},
		{"F_SETOWN_EX", F_SETOWN_EX, syscall.F_SETOWN_EX}, {"F_SETLEASE", F_SETLEASE, syscall.F_SETLEASE}, {"F_NOTIFY", F_NOTIFY, syscall.F_NOTIFY},
		{"F_DUPFD_CLOEXEC", F_DUPFD_CLOEXEC, syscall.F_DUPFD_CLOEXEC}, {"F_WRLCK", F_WRLCK, syscall.F_WRLCK}, {"F_UNLCK", F_UNLCK, syscall.F_UNLCK},
		{"LOCK_NB", LOCK_NB, syscall.LOCK_NB}, {"LOCK_UN", LOCK_UN, syscall.LOCK_UN},
		{"IN_ALL_EVENTS", IN_ALL_EVENTS, syscall.IN_ALL_EVENTS}, {"IN_DONT_FOLLOW", IN_DONT_FOLLOW, syscall.IN_DONT_FOLLOW}, {"IN_EXCL_UNLINK", IN_EXCL_UNLINK, syscall.IN_EXCL_UNLINK},
		{"IN_IGNORED", IN_IGNORED, syscall.IN_IGNORED}, {"IN_ISDIR", IN_ISDIR, syscall.IN_ISDIR}, {"IN_MASK_ADD", IN_MASK_ADD, syscall.IN_MASK_ADD},
		{"IN_ONESHOT", IN_ONESHOT, syscall.IN_ONESHOT}, {"IN_ONLYDIR", IN_ONLYDIR, syscall.IN_ONLYDIR}, {"IN_Q_OVERFLOW", IN_Q_OVERFLOW, syscall.IN_Q_OVERFLOW},
		{"MS_REMOUNT", MS_REMOUNT, syscall.MS_REMOUNT}, {"MS_BIND", MS_BIND, syscall.MS_BIND}, {"MS_MOVE", MS_MOVE, syscall.MS_MOVE}, {"MS_REC", MS_REC, syscall.MS_REC},
		{"MS_RELATIME", MS_RELATIME, syscall.MS_RELATIME}, {"MS_PRIVATE", MS_PRIVATE, syscall.MS_PRIVATE}, {"MNT_DETACH", MNT_DETACH, syscall.MNT_DETACH},
	} {
		require.Equal(t, c.want, c.got, c.name)
	}
	require.EqualValues(t, DT_DIR, S_IFDIR>>12)
}
