#include "state/authority.h"

#include <fcntl.h>

#include "os/certificate_authority.h"
#include "os/files.h"

namespace agent_vm {
namespace {
constexpr std::size_t kMost = 65536;
}

Status replace_authority(const std::string& vm_name, int dir) {
  const auto made = TRY(make_certificate_authority("agent-vm " + vm_name));
  TRY(make_directory_at(dir, vm_files::kAuthority, 0700));
  const Fd folder = TRY(open_beneath(dir, vm_files::kAuthority, O_RDONLY | O_DIRECTORY));
  // The key last: a certificate without one is replaced at the next start.
  TRY(write_file_atomic(folder.get(), "certificate.pem", made.certificate, 0644));
  return write_file_atomic(folder.get(), "authority.pem", made.key + made.certificate, 0600);
}

Status ensure_authority(const std::string& vm_name, int dir) {
  constexpr std::chrono::hours kMonth{30 * 24};
  if (exists_at(dir, vm_files::kAuthorityKey) && exists_at(dir, vm_files::kAuthorityCertificate)) {
    const auto left = lifetime_left(TRY(read_file_at(dir, vm_files::kAuthorityCertificate, kMost)));
    if (left && *left > kMonth) return {};
  }
  return replace_authority(vm_name, dir);
}

Result<Fd> open_authority(int dir) {
  return open_beneath(dir, vm_files::kAuthorityKey, O_RDONLY);
}

Result<TrustedCertificate> read_authority_certificate(int dir) {
  TrustedCertificate certificate;
  certificate.pem = TRY(read_file_at(dir, vm_files::kAuthorityCertificate, kMost));
  certificate.subject_hash = TRY(subject_hash(certificate.pem));
  return certificate;
}

}  // namespace agent_vm
