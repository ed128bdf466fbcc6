#include "state/keys.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/text.h"
#include "os/files.h"
#include "os/random.h"
#include "state/vm_directory.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxPublicKey = 4096;

// Returns the public key's "ssh-ed25519 AAAA...", without the comment.
Result<std::string> make_key_pair(int dir, const std::string& path, const std::string& file,
                                  const std::string& comment, const Bounds& bounds) {
  Command command;
  command.argv = {"ssh-keygen", "-q", "-t",    "ed25519", "-N",
                  "",           "-C", comment, "-f",      path + "/" + file};
  command.deadline = bounds.deadline;
  command.interrupt_fd = bounds.interrupt_fd;
  auto made = run_checked(command);
  if (!made) {
    Error error = std::move(made).error().within("making a key");
    if (error.kind() == ErrorKind::kMissing) {
      error = std::move(error).with_hint("sudo apt-get install openssh-client");
    }
    return tl::unexpected(std::move(error));
  }
  // Whatever the umask is.
  for (const auto& [name, mode] : {std::pair{file, 0600U}, std::pair{file + ".pub", 0644U}}) {
    if (::fchmodat(dir, name.c_str(), mode, 0) != 0) {
      return fail_errno(errno, "cannot set the mode of {}", name);
    }
  }
  const std::string text = TRY(read_file_at(dir, file + ".pub", kMaxPublicKey));
  const auto fields = split(trim(text), ' ');
  if (fields.size() < 2) return fail("ssh-keygen wrote a public key that cannot be understood");
  return fields[0] + " " + fields[1];
}

}  // namespace

Status make_keys(const std::string& vm_name, int dir, const std::string& path,
                 const Bounds& bounds) {
  TRY(make_directory_at(dir, "ssh", 0700));
  TRY(make_key_pair(dir, path, vm_files::kPrivateKey, "agent-vm " + vm_name, bounds));
  const std::string host_key = TRY(make_key_pair(dir, path, vm_files::kHostKey, vm_name, bounds));
  const Fd ssh = TRY(open_beneath(dir, "ssh", O_RDONLY | O_DIRECTORY));
  TRY(write_file_atomic(ssh.get(), "known_hosts", fmt::format("{} {}\n", vm_name, host_key), 0600));

  return write_file_atomic(dir, vm_files::kMcpToken, TRY(random_hex(32)), 0600);
}

}  // namespace agent_vm
