// For the inside of a test's guest, whose image it is put into as a setuid program: runs a command
// as root. The product's images have no way for `dev` to become root, and tests that play a guest
// whose root is hostile need one.
#include <grp.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc < 2 || ::setgroups(0, nullptr) != 0 || ::setresgid(0, 0, 0) != 0 ||
      ::setresuid(0, 0, 0) != 0) {
    return 126;
  }
  ::execvp(argv[1], argv + 1);
  return 127;
}
