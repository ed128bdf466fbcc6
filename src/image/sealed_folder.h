// A folder of files that belong together, such as a saved machine, and a manifest that says what
// each of them must be. Without its manifest a folder is nothing, so it is written last.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

struct SealedFolder {
  nlohmann::json about;
  std::map<std::string, Fd> files;  // open for reading, by name
};

// Measures the files, puts them on the disk, and writes `manifest`, with `about` in it.
Status seal_folder(int dir, const std::string& manifest, const nlohmann::json& about,
                   const std::vector<std::string>& files);

// The error says what is missing or not what it was.
Result<SealedFolder> open_sealed_folder(int dir, const std::string& manifest);

}  // namespace agent_vm
