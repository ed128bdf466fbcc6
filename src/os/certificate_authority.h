// Making a certificate authority: a key, and a certificate that it has signed itself.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm {

struct CertificateAuthority {
  std::string key;          // PEM, P-256: an emulated guest checks thousands of signatures a minute
  std::string certificate;  // PEM
};

// Valid for ten years from yesterday (clocks differ); may sign servers' certificates and nothing
// below them.
Result<CertificateAuthority> make_certificate_authority(const std::string& common_name);

// Negative once it has expired.
Result<std::chrono::seconds> lifetime_left(std::string_view certificate_pem);

// "1a2b3c4d": the name, less ".0", under which OpenSSL looks for a certificate in a folder.
Result<std::string> subject_hash(std::string_view certificate_pem);

}  // namespace agent_vm
