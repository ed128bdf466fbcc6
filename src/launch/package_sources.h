// Where this machine gets packages from, by its own configuration of apt, npm and pip: what the
// presets @apt, @npm and @pip stand for, and what a guest's own apt, npm and pip are told. Package
// registries are never named in the code, and no password for one leaves the host.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "image/apt_sources.h"

namespace agent_vm {

// URLs are http or https, without credentials. What cannot be found out is empty.
struct PackageSources {
  std::vector<AptSource> apt;  // Debian's, for the guest's release
  std::string apt_settings;    // lines of apt.conf(5): how old package lists may be
  std::string npm;             // the registry
  std::map<std::string, std::string> npm_scopes;  // "@scope" -> registry
  std::string pip;                                // the index
  std::vector<std::string> pip_extra;             // more of them
  std::vector<std::string> pip_hosts;  // that serve the files of the index, besides its own
};

// Asks npm, pip and apt only when their configuration has changed since the last time; the answers
// are kept in the user's cache. What fails is logged and left empty: a registry that is not known
// is one that cannot be reached, and nothing worse.
PackageSources find_package_sources(const Deadline& deadline);

// The rules under which packages can be fetched, and not published.
std::vector<std::string> apt_rules(const PackageSources& sources);
std::vector<std::string> npm_rules(const PackageSources& sources);
std::vector<std::string> pip_rules(const PackageSources& sources);

// What the guest's apt, npm and pip are to be told: member "packages" of the identity document.
nlohmann::json guest_package_settings(const PackageSources& sources);

// The URL without user and password, or "" when it is no http or https URL on one plain line.
std::string plain_url(std::string_view url);
// The host of an http or https URL, lower case; empty when it is none.
std::string host_of_url(std::string_view url);
// Its path without slashes at the end: "/debian", "".
std::string path_of_url(std::string_view url);

}  // namespace agent_vm
