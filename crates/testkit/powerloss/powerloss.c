/*
 * Power loss, simulated: a library for LD_PRELOAD that records which part of what a process writes below one directory
 * is durable, so that after kill -9 `powerloss::cut` (../src/powerloss.rs) can throw the rest away. kill -9 alone keeps the
 * page cache, and with it everything that was never synced.
 *
 * Why C: the calls are taken over by defining libc's own symbols, several of them variadic (open, fcntl), in a shared
 * object that is loaded before libc. Rust can't define variadic functions, and the workspace forbids unsafe code. The
 * real work is done by bare system calls, so that nothing here depends on the order in which libraries are set up.
 *
 * Environment
 *   SIGILLO_POWERLOSS_DIR  the directory that is watched, with everything below it
 *   SIGILLO_POWERLOSS_LOG  the log, written by `powerloss::begin` and continued here, outside that directory; beside it
 *                          `<log>.graves/`, a directory of the same file system
 *   SIGILLO_POWERLOSS_LIE  "1": fsync and fdatasync do nothing, report success, and nothing counts as durable
 *   SIGILLO_POWERLOSS_ROOM a file of 8 bytes: how many may still be written below the directory, less than 0 = any number.
 *                          It may be written while the process runs. What finds no room is written in part, or fails with
 *                          ENOSPC; what is deleted gives no room back. Optional
 *
 * What counts as durable (the strict reading of POSIX)
 *   bytes    a file's bytes up to the length that it had when an fsync or fdatasync of it began that has returned. What
 *            is overwritten or cut off below that length goes to the log first, and comes back. sync_file_range counts as
 *            nothing, nor do sync and syncfs. A write through O_SYNC or O_DSYNC counts as a write and a sync.
 *   entries  a creation, rename, link, unlink, mkdir or rmdir, once an fsync of its directory has returned that began
 *            after it (of a rename: the directory renamed into). That ext4 also makes a new file's entry durable with the
 *            file's own fsync is not relied upon. Until then an unlinked or replaced file is kept among the graves.
 * What is durable for certain is kept; everything else is lost, which a real loss of power may do and seldom does.
 *
 * What is not watched ends the process with a message (shared writable mappings, stdio streams opened for writing), or is
 * refused so that the program falls back to write (copy_file_range, sendfile, splice). Bare system calls can't be seen;
 * files created by them are, by `powerloss::cut`, which then fails.
 *
 * The log, in the machine's byte order: records of a struct header and `bytes` more. A record about an action is written
 * before the action, a record about a sync after it; so a kill between the two loses nothing. A torn last record is the
 * record of an action that never happened.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The kinds of records; `number` and `start` mean what stands here, and are 0 otherwise. */
enum kind {
	FILE_AT_START = 1, /* inode, number: its length, all of it durable */
	NEW_FILE = 2,      /* inode: a file that was just created, nothing of it durable */
	SYNCED = 3,        /* inode, number: length, start: log offset when the sync began */
	OLD_BYTES = 4,     /* inode, number: offset; the bytes that were there */
	DIR_SYNCED = 5,    /* inode of the directory, start: log offset when the sync began */
	/* Inode of the directory; the path, and a second one for RENAMED (from, to), each ended by a zero byte. */
	CREATED = 6,
	UNLINKED = 7, /* number: its grave */
	RENAMED = 8,  /* number: grave of what was replaced, or 0 */
	LINKED = 9,
	MADE_DIR = 10,
	REMOVED_DIR = 11,
};

struct header {
	uint32_t kind;
	uint32_t bytes;
	uint64_t inode;
	uint64_t number;
	uint64_t start;
};

/* A regular file below the directory. `guard`: bytes below it are durable, or being made so, and saved before they change. */
struct file {
	uint64_t inode;
	_Atomic uint64_t guard;
	struct file *next;
};

/* A file that is gone, but not durably so. */
struct grave {
	uint64_t number;
	uint64_t directory;
	uint64_t at;
	struct grave *next;
};

#define FDS (1 << 16)
#define BUCKETS 4096
#define CHUNK (256 << 10)

static char root[PATH_MAX], graves_dir[PATH_MAX];
static size_t root_length;
static int log_fd = -1, lying;
static _Atomic int64_t *room;
static uint64_t log_length, next_grave = 1;
static struct file *files[BUCKETS];
static struct grave *graves;
static struct file *_Atomic fds[FDS];
static _Atomic int fd_flags[FDS];
/* Guards the log, the table of files, the graves, and every action whose record must stand before it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what, const char *path)
{
	char text[PATH_MAX + 100];
	int length = snprintf(text, sizeof text, "powerloss: %s: %s\n", what, path);
	syscall(SYS_write, 2, text, length);
	abort();
}

static void write_log(enum kind kind, uint64_t inode, uint64_t number, uint64_t start, const void *bytes, size_t length)
{
	struct header header = {kind, (uint32_t)length, inode, number, start};
	struct iovec parts[2] = {{&header, sizeof header}, {(void *)bytes, length}};
	ssize_t whole = sizeof header + length;
	if (syscall(SYS_writev, log_fd, parts, 2) != whole)
		die("the log can't be written", strerror(errno));
	log_length += whole;
}

static struct file *find_file(uint64_t inode)
{
	struct file *file = files[inode % BUCKETS];
	while (file && file->inode != inode)
		file = file->next;
	return file;
}

static struct file *add_file(uint64_t inode, uint64_t guard)
{
	struct file *file = find_file(inode);
	if (!file) {
		file = calloc(1, sizeof *file);
		if (!file)
			die("no memory", "");
		file->inode = inode;
		file->next = files[inode % BUCKETS];
		files[inode % BUCKETS] = file;
	}
	file->guard = guard;
	return file;
}

static void grave_path(uint64_t number, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.4000s/%llu", graves_dir, (unsigned long long)number);
}

static void dig(uint64_t number, uint64_t directory, uint64_t at)
{
	struct grave *grave = calloc(1, sizeof *grave);
	if (!grave)
		die("no memory", "");
	*grave = (struct grave){number, directory, at, graves};
	graves = grave;
}

/* Removes for good what left `directory` before `start`. */
static void fill_graves(uint64_t directory, uint64_t start)
{
	struct grave **slot = &graves;
	while (*slot) {
		struct grave *grave = *slot;
		if (grave->directory == directory && grave->at < start) {
			char path[PATH_MAX];
			grave_path(grave->number, path);
			syscall(SYS_unlinkat, AT_FDCWD, path, 0);
			*slot = grave->next;
			free(grave);
		} else {
			slot = &grave->next;
		}
	}
}

/* Reads what an earlier process, killed without loss of power, left in the log. */
static void read_log(void)
{
	struct header header;
	struct stat stat;
	char created[PATH_MAX] = "";
	while (syscall(SYS_pread64, log_fd, &header, sizeof header, log_length) == sizeof header) {
		uint64_t end = log_length + sizeof header + header.bytes;
		struct file *file = find_file(header.inode);
		if (fstat(log_fd, &stat) != 0 || end > (uint64_t)stat.st_size)
			break;
		if (header.kind == FILE_AT_START)
			add_file(header.inode, header.number);
		else if (header.kind == NEW_FILE)
			add_file(header.inode, 0);
		else if (header.kind == SYNCED && file && file->guard < header.number)
			file->guard = header.number;
		else if (header.kind == DIR_SYNCED)
			fill_graves(header.inode, header.start);
		else if ((header.kind == UNLINKED || header.kind == RENAMED) && header.number)
			dig(header.number, header.inode, log_length);
		if ((header.kind == UNLINKED || header.kind == RENAMED) && header.number >= next_grave)
			next_grave = header.number + 1;
		created[0] = 0;
		if (header.kind == CREATED && header.bytes <= sizeof created)
			syscall(SYS_pread64, log_fd, created, header.bytes, log_length + sizeof header);
		log_length = end;
	}
	if (syscall(SYS_ftruncate, log_fd, log_length) != 0)
		die("the log's torn end can't be cut", strerror(errno));
	/* It was killed between creating a file and recording its inode. */
	if (created[0] && lstat(created, &stat) == 0) {
		write_log(NEW_FILE, stat.st_ino, 0, 0, NULL, 0);
		add_file(stat.st_ino, 0);
	}
}

static void map_room(const char *path)
{
	long mapped;
	int fd;
	if (!path)
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	mapped = syscall(SYS_mmap, NULL, sizeof *room, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);
	if (fd < 0 || mapped == -1)
		die("the file of the room can't be mapped", path);
	syscall(SYS_close, fd);
	room = (void *)mapped;
}

/* Takes room for up to `length` bytes, and returns for how many there was some. */
static uint64_t take_room(uint64_t length)
{
	int64_t left, taken;
	if (!room)
		return length;
	left = atomic_load(room);
	do {
		if (left < 0)
			return length;
		taken = (uint64_t)left < length ? left : (int64_t)length;
	} while (!atomic_compare_exchange_weak(room, &left, left - taken));
	return taken;
}

__attribute__((constructor)) static void begin(void)
{
	const char *directory = getenv("SIGILLO_POWERLOSS_DIR"), *log = getenv("SIGILLO_POWERLOSS_LOG");
	const char *lie = getenv("SIGILLO_POWERLOSS_LIE");
	if (!directory || !log)
		return;
	if (!realpath(directory, root))
		die("the directory can't be found", directory);
	log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_RDWR | O_APPEND | O_CLOEXEC, 0);
	if (log_fd < 0)
		die("the log can't be opened", log);
	snprintf(graves_dir, sizeof graves_dir, "%.4000s.graves", log);
	lying = lie && strcmp(lie, "1") == 0;
	map_room(getenv("SIGILLO_POWERLOSS_ROOM"));
	read_log();
	root_length = strlen(root);
}

/* True if `path` names something below the directory; then `full` is its path without links and dots. */
static int is_below(int dirfd, const char *path, char full[PATH_MAX])
{
	char given[PATH_MAX], real[PATH_MAX], at[64];
	int saved = errno, below = 0;
	size_t length;
	ssize_t base = 0;
	char *slash;
	if (!root_length || !path)
		return 0;
	if (path[0] != '/' && dirfd != AT_FDCWD) {
		snprintf(at, sizeof at, "/proc/self/fd/%d", dirfd);
		base = readlink(at, given, sizeof given - 2);
		if (base < 0)
			goto out;
		given[base++] = '/';
	}
	length = strlen(path);
	if (base + length >= sizeof given)
		goto out;
	memcpy(given + base, path, length + 1);
	for (length += base; length > 1 && given[length - 1] == '/'; length--)
		given[length - 1] = 0;
	slash = strrchr(given, '/');
	if (slash)
		*slash = 0;
	if (realpath(slash ? (slash == given ? "/" : given) : ".", real)) {
		const char *name = slash ? slash + 1 : given;
		int written = snprintf(full, PATH_MAX, "%s/%s", real, name);
		below = written < PATH_MAX && strncmp(full, root, root_length) == 0 && full[root_length] == '/';
	}
out:
	errno = saved;
	return below;
}

static uint64_t parent_inode(const char *full)
{
	char parent[PATH_MAX];
	struct stat stat;
	snprintf(parent, sizeof parent, "%s", full);
	*strrchr(parent, '/') = 0;
	return lstat(parent, &stat) == 0 ? stat.st_ino : 0;
}

static void log_entry(enum kind kind, const char *full, uint64_t grave, const char *to)
{
	char paths[2 * PATH_MAX];
	size_t first = strlen(full) + 1, second = to ? strlen(to) + 1 : 0;
	uint64_t directory = parent_inode(to ? to : full);
	memcpy(paths, full, first);
	if (to)
		memcpy(paths + first, to, second);
	if (grave)
		dig(grave, directory, log_length);
	write_log(kind, directory, grave, 0, paths, first + second);
}

/* Saves the bytes of a range that are there and that the guard covers. The lock is held. */
static void save(struct file *file, int fd, uint64_t offset, uint64_t length)
{
	char path[64];
	static char bytes[CHUNK];
	uint64_t end = offset + length < offset || offset + length > file->guard ? file->guard : offset + length;
	int reader;
	if (offset >= end)
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	reader = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (reader < 0)
		die("bytes about to be overwritten can't be read", strerror(errno));
	while (offset < end) {
		size_t want = end - offset < CHUNK ? end - offset : CHUNK;
		ssize_t got = syscall(SYS_pread64, reader, bytes, want, offset);
		if (got < 0)
			die("bytes about to be overwritten can't be read", strerror(errno));
		if (got == 0)
			break;
		write_log(OLD_BYTES, file->inode, offset, 0, bytes, got);
		offset += got;
	}
	syscall(SYS_close, reader);
}

static struct file *watched(int fd)
{
	return fd >= 0 && fd < FDS ? atomic_load(&fds[fd]) : NULL;
}

static void watch(int fd, struct file *file, int flags)
{
	if (fd < 0)
		return;
	if (fd >= FDS) {
		if (file)
			die("more open files than this library has room for", "");
		return;
	}
	atomic_store(&fd_flags[fd], flags);
	atomic_store(&fds[fd], file);
}

static int raw_open(int dirfd, const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

static int cut_to(struct file *file, int fd, off_t length)
{
	struct stat stat;
	int result;
	pthread_mutex_lock(&lock);
	if (fstat(fd, &stat) == 0 && length >= 0 && length < stat.st_size)
		save(file, fd, length, stat.st_size - length);
	result = (int)syscall(SYS_ftruncate, fd, length);
	pthread_mutex_unlock(&lock);
	return result;
}

static int open_at(int dirfd, const char *path, int flags, mode_t mode)
{
	char full[PATH_MAX];
	struct stat stat;
	struct file *file = NULL;
	int fd, existed, cuts = flags & O_TRUNC && (flags & O_ACCMODE) != O_RDONLY;
	if (!is_below(dirfd, path, full)) {
		fd = raw_open(dirfd, path, flags, mode);
		watch(fd, NULL, 0);
		return fd;
	}
	if ((flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	pthread_mutex_lock(&lock);
	existed = lstat(full, &stat) == 0;
	if (!existed && flags & O_CREAT)
		log_entry(CREATED, full, 0, NULL);
	fd = raw_open(dirfd, path, flags & ~O_TRUNC, mode);
	if (fd >= 0 && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode)) {
		if (!existed) {
			write_log(NEW_FILE, stat.st_ino, 0, 0, NULL, 0);
			file = add_file(stat.st_ino, 0);
		} else {
			file = find_file(stat.st_ino);
			if (!file)
				die("a file appeared that was not created through libc", full);
		}
	}
	watch(fd, file, flags);
	pthread_mutex_unlock(&lock);
	if (file && cuts && cut_to(file, fd, 0) != 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

#define MODE(flags)                                                                                                    \
	mode_t mode = 0;                                                                                               \
	if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) {                                                 \
		va_list list;                                                                                          \
		va_start(list, flags);                                                                                 \
		mode = va_arg(list, mode_t);                                                                           \
		va_end(list);                                                                                          \
	}

int open(const char *path, int flags, ...)
{
	MODE(flags)
	return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	MODE(flags)
	return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
	MODE(flags)
	return open_at(dirfd, path, flags, mode);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	MODE(flags)
	return open_at(dirfd, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
	return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
	return creat(path, mode);
}

/* Streams write by libc's inner calls, which can't be seen; so only those for reading are let through. */
static FILE *stream(const char *path, const char *mode)
{
	char full[PATH_MAX];
	int fd;
	FILE *file;
	if (strpbrk(mode, "wa+") && is_below(AT_FDCWD, path, full))
		die("a stdio stream was opened for writing", path);
	fd = open_at(AT_FDCWD, path,
		     (strchr(mode, '+') ? O_RDWR : strpbrk(mode, "wa") ? O_WRONLY : O_RDONLY) |
			     (strchr(mode, 'w') ? O_CREAT | O_TRUNC : 0) | (strchr(mode, 'a') ? O_CREAT | O_APPEND : 0) |
			     (strchr(mode, 'e') ? O_CLOEXEC : 0) | (strchr(mode, 'x') ? O_EXCL : 0),
		     0666);
	if (fd < 0)
		return NULL;
	file = fdopen(fd, mode);
	if (!file)
		close(fd);
	return file;
}

FILE *fopen(const char *path, const char *mode)
{
	return stream(path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
	return stream(path, mode);
}

int close(int fd)
{
	watch(fd, NULL, 0);
	return (int)syscall(SYS_close, fd);
}

static int copied(int from, int to)
{
	if (to >= 0 && from != to && from >= 0 && from < FDS)
		watch(to, watched(from), atomic_load(&fd_flags[from]));
	return to;
}

int dup(int fd)
{
	return copied(fd, (int)syscall(SYS_dup, fd));
}

int dup3(int fd, int to, int flags)
{
	return copied(fd, (int)syscall(SYS_dup3, fd, to, flags));
}

int dup2(int fd, int to)
{
	if (fd == to)
		return syscall(SYS_fcntl, fd, F_GETFD, 0) < 0 ? -1 : to;
	return dup3(fd, to, 0);
}

static int control(int fd, int command, void *argument)
{
	int result = (int)syscall(SYS_fcntl, fd, command, argument);
	return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? copied(fd, result) : result;
}

#define ARGUMENT(last)                                                                                                 \
	va_list list;                                                                                                  \
	va_start(list, last);                                                                                          \
	void *argument = va_arg(list, void *);                                                                         \
	va_end(list);

int fcntl(int fd, int command, ...)
{
	ARGUMENT(command)
	return control(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
	ARGUMENT(command)
	return control(fd, command, argument);
}

static int sync_fd(long call, int fd)
{
	struct stat stat;
	struct file *file = watched(fd);
	uint64_t start;
	int result;
	if (!root_length || fstat(fd, &stat) != 0 || (!file && !S_ISDIR(stat.st_mode)))
		return (int)syscall(call, fd);
	if (lying)
		return 0;
	pthread_mutex_lock(&lock);
	start = log_length;
	if (file && fstat(fd, &stat) == 0 && file->guard < (uint64_t)stat.st_size)
		file->guard = stat.st_size;
	pthread_mutex_unlock(&lock);
	result = (int)syscall(call, fd);
	if (result != 0)
		return result;
	pthread_mutex_lock(&lock);
	if (file) {
		write_log(SYNCED, file->inode, stat.st_size, start, NULL, 0);
	} else {
		write_log(DIR_SYNCED, stat.st_ino, 0, start, NULL, 0);
		fill_graves(stat.st_ino, start);
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

int fsync(int fd)
{
	return sync_fd(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return sync_fd(SYS_fdatasync, fd);
}

/* One write of any form, for which there is room. `offset` < 0: where the descriptor stands. */
static ssize_t write_roomy(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	struct file *file = watched(fd);
	int opened = file ? atomic_load(&fd_flags[fd]) : 0;
	int positioned = offset >= 0, saving = 0;
	ssize_t result;
	if (file && file->guard) {
		uint64_t length = 0;
		struct stat stat;
		for (int i = 0; i < count; i++)
			length += parts[i].iov_len;
		if (opened & O_APPEND)
			offset = fstat(fd, &stat) == 0 ? stat.st_size : 0;
		else if (!positioned)
			offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
		saving = (uint64_t)offset < file->guard;
		if (saving) {
			pthread_mutex_lock(&lock);
			save(file, fd, offset, length);
		}
	}
	if (positioned || flags)
		result = syscall(SYS_pwritev2, fd, parts, (long)count, positioned ? offset : -1L, 0L, flags);
	else
		result = syscall(SYS_writev, fd, parts, count);
	if (saving)
		pthread_mutex_unlock(&lock);
	if (file && result > 0 && (opened & O_DSYNC || flags & (RWF_DSYNC | RWF_SYNC))) {
		if (sync_fd(SYS_fdatasync, fd) != 0)
			return -1;
	}
	return result;
}

static ssize_t write_at(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	struct iovec fitting[IOV_MAX];
	uint64_t length = 0, left;
	int used = 0;
	if (!room || !watched(fd) || count <= 0 || count > IOV_MAX)
		return write_roomy(fd, parts, count, offset, flags);
	for (int i = 0; i < count; i++)
		length += parts[i].iov_len;
	left = take_room(length);
	if (left == length)
		return write_roomy(fd, parts, count, offset, flags);
	if (left == 0) {
		errno = ENOSPC;
		return -1;
	}
	for (; left; used++) {
		fitting[used] = parts[used];
		if (fitting[used].iov_len > left)
			fitting[used].iov_len = left;
		left -= fitting[used].iov_len;
	}
	return write_roomy(fd, fitting, used, offset, flags);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	struct iovec part = {(void *)bytes, length};
	return watched(fd) ? write_at(fd, &part, 1, -1, 0) : syscall(SYS_write, fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
	struct iovec part = {(void *)bytes, length};
	if (watched(fd) && offset >= 0)
		return write_at(fd, &part, 1, offset, 0);
	return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
	return pwrite(fd, bytes, length, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	return watched(fd) ? write_at(fd, parts, count, -1, 0) : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	if (watched(fd) && offset >= -1)
		return write_at(fd, parts, count, offset, flags);
	return syscall(SYS_pwritev2, fd, parts, (long)count, offset, 0L, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
	return pwritev2(fd, parts, count, offset, flags);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
	if (watched(fd) && offset >= 0)
		return write_at(fd, parts, count, offset, 0);
	return syscall(SYS_pwritev, fd, parts, (long)count, offset, 0L);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
	return pwritev(fd, parts, count, offset);
}

int ftruncate(int fd, off_t length)
{
	struct file *file = watched(fd);
	return file ? cut_to(file, fd, length) : (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length)
{
	return ftruncate(fd, length);
}

int truncate(const char *path, off_t length)
{
	int fd = open_at(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0), result, saved;
	if (fd < 0)
		return -1;
	result = ftruncate(fd, length);
	saved = errno;
	close(fd);
	errno = saved;
	return result;
}

int truncate64(const char *path, off64_t length)
{
	return truncate(path, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	struct file *file = watched(fd);
	int result;
	if (file && !(mode & FALLOC_FL_PUNCH_HOLE) && room && atomic_load(room) >= 0 && atomic_load(room) < length) {
		errno = ENOSPC;
		return -1;
	}
	if (!file || !(mode & ~FALLOC_FL_KEEP_SIZE))
		return (int)syscall(SYS_fallocate, fd, mode, offset, length);
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	pthread_mutex_lock(&lock);
	save(file, fd, offset, length);
	result = (int)syscall(SYS_fallocate, fd, mode, offset, length);
	pthread_mutex_unlock(&lock);
	return result;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	return fallocate(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
	int saved = errno, result = fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
	errno = saved;
	return result;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	return posix_fallocate(fd, offset, length);
}

static int rename_at(int old_dir, const char *old, int new_dir, const char *new, unsigned flags)
{
	char from[PATH_MAX], to[PATH_MAX], grave_file[PATH_MAX];
	int from_below = is_below(old_dir, old, from), to_below = is_below(new_dir, new, to), result, saved;
	struct stat source, target;
	if (!from_below && !to_below)
		return (int)syscall(SYS_renameat2, old_dir, old, new_dir, new, flags);
	if (from_below != to_below || flags & ~(unsigned)RENAME_NOREPLACE) {
		errno = from_below != to_below ? EXDEV : EINVAL;
		return -1;
	}
	pthread_mutex_lock(&lock);
	if (lstat(from, &source) == 0) {
		int replaces = !(flags & RENAME_NOREPLACE) && lstat(to, &target) == 0 && S_ISREG(target.st_mode) &&
			       target.st_ino != source.st_ino;
		uint64_t grave = replaces ? next_grave++ : 0;
		log_entry(RENAMED, from, grave, to);
		grave_path(grave, grave_file);
		/* A second link keeps what is replaced, and the replacement itself stays atomic. */
		if (grave && syscall(SYS_linkat, AT_FDCWD, to, AT_FDCWD, grave_file, 0) != 0)
			die("a replaced file can't be kept", strerror(errno));
	}
	result = (int)syscall(SYS_renameat2, old_dir, old, new_dir, new, flags);
	saved = errno;
	pthread_mutex_unlock(&lock);
	errno = saved;
	return result;
}

int rename(const char *from, const char *to)
{
	return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return rename_at(from_dir, from, to_dir, to, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	return rename_at(from_dir, from, to_dir, to, flags);
}

static int unlink_at(int dirfd, const char *path, int flags)
{
	char full[PATH_MAX], grave_file[PATH_MAX];
	struct stat stat;
	int result, saved;
	if (!is_below(dirfd, path, full))
		return (int)syscall(SYS_unlinkat, dirfd, path, flags);
	pthread_mutex_lock(&lock);
	if (!(flags & AT_REMOVEDIR) && lstat(full, &stat) == 0 && S_ISREG(stat.st_mode)) {
		uint64_t grave = next_grave++;
		log_entry(UNLINKED, full, grave, NULL);
		grave_path(grave, grave_file);
		result = (int)syscall(SYS_renameat2, AT_FDCWD, full, AT_FDCWD, grave_file, 0);
	} else {
		if (flags & AT_REMOVEDIR)
			log_entry(REMOVED_DIR, full, 0, NULL);
		result = (int)syscall(SYS_unlinkat, dirfd, path, flags);
	}
	saved = errno;
	pthread_mutex_unlock(&lock);
	errno = saved;
	return result;
}

int unlink(const char *path)
{
	return unlink_at(AT_FDCWD, path, 0);
}

int unlinkat(int dirfd, const char *path, int flags)
{
	return unlink_at(dirfd, path, flags);
}

int rmdir(const char *path)
{
	return unlink_at(AT_FDCWD, path, AT_REMOVEDIR);
}

int remove(const char *path)
{
	struct stat stat;
	return lstat(path, &stat) == 0 && S_ISDIR(stat.st_mode) ? rmdir(path) : unlink(path);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	char from_full[PATH_MAX], to_full[PATH_MAX];
	int from_below = is_below(from_dir, from, from_full), to_below = is_below(to_dir, to, to_full), result, saved;
	struct stat stat;
	if (!from_below && !to_below)
		return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
	if (from_below != to_below) {
		errno = EXDEV;
		return -1;
	}
	pthread_mutex_lock(&lock);
	if (lstat(to_full, &stat) != 0)
		log_entry(LINKED, to_full, 0, NULL);
	result = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
	saved = errno;
	pthread_mutex_unlock(&lock);
	errno = saved;
	return result;
}

int link(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
	char full[PATH_MAX];
	struct stat stat;
	int result, saved;
	if (!is_below(dirfd, path, full))
		return (int)syscall(SYS_mkdirat, dirfd, path, mode);
	pthread_mutex_lock(&lock);
	if (lstat(full, &stat) != 0)
		log_entry(MADE_DIR, full, 0, NULL);
	result = (int)syscall(SYS_mkdirat, dirfd, path, mode);
	saved = errno;
	pthread_mutex_unlock(&lock);
	errno = saved;
	return result;
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (flags & MAP_SHARED && protection & PROT_WRITE && !(flags & MAP_ANONYMOUS) && watched(fd))
		die("a file was mapped to be written", "its writes can't be seen");
	return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return mmap(address, length, protection, flags, fd, offset);
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags)
{
	if (watched(to)) {
		errno = ENOSYS;
		return -1;
	}
	return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
}

ssize_t sendfile(int to, int from, off_t *at, size_t length)
{
	if (watched(to)) {
		errno = EINVAL;
		return -1;
	}
	return syscall(SYS_sendfile, to, from, at, length);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t length)
{
	return sendfile(to, from, at, length);
}

ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags)
{
	if (watched(to)) {
		errno = EINVAL;
		return -1;
	}
	return syscall(SYS_splice, from, from_at, to, to_at, length, flags);
}
