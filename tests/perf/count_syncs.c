/* Preloaded into a daemon: counts its fsync and fdatasync calls in the file that BUNKER_SYNC_COUNT
 * names, eight bytes in the machine's order, so that a measurement can read them while it runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t* counter;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void Start(void) {
  real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  const char* path = getenv("BUNKER_SYNC_COUNT");
  if (path == NULL) return;
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  if (ftruncate(fd, sizeof(uint64_t)) == 0) {
    void* page = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) counter = page;
  }
  close(fd);
}

static void Count(void) {
  if (counter != NULL) atomic_fetch_add(counter, 1);
}

int fsync(int fd) {
  Count();
  return real_fsync(fd);
}

int fdatasync(int fd) {
  Count();
  return real_fdatasync(fd);
}
