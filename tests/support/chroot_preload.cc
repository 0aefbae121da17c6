// Preloaded into GNU tar by tests: moves the process into BUNKER_TEST_ROOT once its libraries are
// loaded, so that symbolic links in there lead where they would in a running system, and an archive
// that would climb out stays in.
#include <unistd.h>

#include <cstdlib>

namespace {

__attribute__((constructor)) void EnterRoot() {
  const char* root = getenv("BUNKER_TEST_ROOT");
  if (root == nullptr || chroot(root) != 0 || chdir("/") != 0) _exit(125);
  unsetenv("LD_PRELOAD");
}

}  // namespace
