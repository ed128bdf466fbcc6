// The VM's certificate authority: the proxy signs with it what it shows to the guest, and the guest
// trusts it. Nobody else does; its key never leaves the host (S20).
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

// Makes ca/ with key and certificate in the VM's directory `dir`, unless it is there and good for
// another month. Not while the VM runs.
Status ensure_authority(const std::string& vm_name, int dir);
// Another one in its place. A running VM keeps the old one until it is started again.
Status replace_authority(const std::string& vm_name, int dir);

// Both in one file, open for reading: what the proxy gets.
Result<Fd> open_authority(int dir);

struct TrustedCertificate {
  std::string pem;
  std::string subject_hash;  // the name under which OpenSSL looks for it, less ".0"
};
Result<TrustedCertificate> read_authority_certificate(int dir);

namespace vm_files {
inline constexpr const char* kAuthority = "ca";
inline constexpr const char* kAuthorityKey = "ca/authority.pem";  // 0600: key and certificate
inline constexpr const char* kAuthorityCertificate = "ca/certificate.pem";
}  // namespace vm_files

}  // namespace agent_vm
