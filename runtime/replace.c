/* replace.c: a file written whole or not at all. In: a path, and a function that writes a descriptor. Out: the file, durable.

   Into PATH.tmp under a lock (two writers of one path take turns, their bytes never mix; a left-over of a killed writer is
   overwritten), then fsync, rename, fsync of the folder: at any moment the path holds the old bytes or the new ones. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum { MINE, RENAMED, NOT_A_FILE, FAILED } Claim;

/* Is the file that we hold locked still the one at the path? While we waited its former holder may have renamed it. */
static Claim claim(int fd, const char *path)
{
    struct stat ours, named;
    if (fstat(fd, &ours))
        return FAILED;
    if (lstat(path, &named))
        return errno == ENOENT ? RENAMED : FAILED;
    if (ours.st_ino != named.st_ino || ours.st_dev != named.st_dev)
        return RENAMED;
    if (S_ISREG(ours.st_mode))
        return ftruncate(fd, 0) ? FAILED : MINE;
    errno = EINVAL;
    return NOT_A_FILE;
}

/* The temporary file, locked and empty; -1 with errno. */
static int open_temporary(const char *path)
{
    for (;;) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0)
            return -1;
        while (flock(fd, LOCK_EX) && errno == EINTR)
            ;
        Claim c = claim(fd, path);
        if (c == MINE)
            return fd;
        int why = errno;
        if (c == FAILED)
            unlink(path);
        close(fd);
        errno = why;
        if (c != RENAMED)
            return -1;
    }
}

static bool sync_folder(const char *path)
{
    char *folder = strdup(path);
    if (!folder)
        return false;
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0)
        return false;
    bool ok = !fsync(fd) || errno == EINVAL || errno == ENOTSUP;  /* not every file system has it */
    close(fd);
    return ok;
}

static int fill(const char *temporary, const char *path, SnWriter write, void *arg, char err[ERR_TEXT])
{
    int fd = open_temporary(temporary);
    if (fd < 0)
        return snR_fail(err, ERR_IO, "%s: cannot create: %s", temporary, strerror(errno));
    int rc = 0;
    if (!write(fd, arg) || fsync(fd) || rename(temporary, path)) {
        rc = snR_fail(err, ERR_IO, "%s: cannot write: %s; what was there before is untouched", path, strerror(errno));
        unlink(temporary);
    } else if (!sync_folder(path))
        rc = snR_fail(err, ERR_IO, "%s: written, but the folder cannot be synced: %s", path, strerror(errno));
    close(fd);
    return rc;
}

int snR_replace(const char *path, SnWriter write, void *arg, char err[ERR_TEXT])
{
    struct stat st;
    size_t size = strlen(path) + 5;
    char *temporary = malloc(size);
    if (!temporary)
        return snR_fail(err, ERR_NOMEM, "%s: out of memory", path);
    snprintf(temporary, size, "%s.tmp", path);
    int rc = !stat(path, &st) && !S_ISREG(st.st_mode) ? snR_fail(err, ERR_IO, "%s: not a regular file, will not replace it", path)
                                                      : fill(temporary, path, write, arg, err);
    free(temporary);
    return rc;
}
