// This machine's apt sources: where a Debian guest is built from. No host is named in the code.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

inline constexpr const char* kImageRelease = "bookworm";  // of Debian, which the guest is

// One repository: one URI and one suite.
struct AptSource {
  std::string uri;    // without a trailing slash
  std::string suite;  // "bookworm-updates"
  std::vector<std::string> components;
  // Deb822 options that decide about trust: Signed-By (a path, a fingerprint, or a whole key over
  // several lines), Trusted, Check-Valid-Until and the like.
  std::map<std::string, std::string> options;

  bool operator==(const AptSource&) const = default;
};

// sources.list(5), the one-line style. Entries that cannot be a network repository (cdrom) and
// deb-src are left out; broken lines are an error with `file_name` and line.
Result<std::vector<AptSource>> parse_one_line_sources(std::string_view text,
                                                      std::string_view file_name);
// sources.list(5), the deb822 style.
Result<std::vector<AptSource>> parse_deb822_sources(std::string_view text,
                                                    std::string_view file_name);
// In the deb822 style.
std::string to_deb822(const std::vector<AptSource>& sources);

// All that apt on this machine reads: sources.list and sources.list.d below `etc_apt`.
Result<std::vector<AptSource>> read_machine_sources(const std::string& etc_apt);

// Of `sources` those that look like Debian itself, for `release` ("bookworm"): the release, its
// updates and its security updates. On a machine with another Debian release the same mirrors are
// used, with the suite replaced. Whether they are Debian's is decided after fetching their Release
// files (see AptRoot). An error when there is none.
Result<std::vector<AptSource>> debian_sources(const std::vector<AptSource>& sources,
                                              std::string_view release);

}  // namespace agent_vm
