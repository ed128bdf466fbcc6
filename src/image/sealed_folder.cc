#include "image/sealed_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "image/verified_files.h"
#include "os/files.h"

namespace agent_vm {

using nlohmann::json;

namespace {
constexpr std::size_t kMaxManifest = 65536;
constexpr std::size_t kMostFiles = 16;

Result<ImageFiles> listed_files(const std::string& manifest, const json& value) {
  if (!value.is_object() || value.value("schema", json()) != 1 || !value.contains("files") ||
      !value["files"].is_object() || value["files"].size() > kMostFiles)
    return fail("{} cannot be understood", manifest);
  ImageFiles files;
  for (const auto& [name, file] : value["files"].items()) {
    if (!file.is_object() || !file.contains("bytes") || !file["bytes"].is_number_unsigned() ||
        !file.contains("sha256") || !file["sha256"].is_string())
      return fail("{} does not say what {} is", manifest, escape_line(name));
    files[name] = {file["bytes"].get<std::uint64_t>(), file["sha256"].get<std::string>()};
  }
  return files;
}

}  // namespace

Status seal_folder(int dir, const std::string& manifest, const json& about,
                   const std::vector<std::string>& files) {
  json listed = json::object();
  ImageFiles measured;
  for (const auto& name : files) {
    const Fd file = TRY(open_beneath(dir, name, O_RDONLY));
    // On disk before its hash says that it is right.
    if (::fdatasync(file.get()) != 0) return fail_errno(errno, "cannot write {}", name);
    measured[name] = TRY(measure_file(dir, name));
    listed[name] = {{"bytes", measured[name].bytes}, {"sha256", measured[name].sha256}};
  }
  const json all = {{"schema", 1}, {"about", about}, {"files", std::move(listed)}};
  TRY(write_file_atomic(dir, manifest, all.dump(2) + "\n", 0600));
  return remember_verified(dir, measured);
}

Result<SealedFolder> open_sealed_folder(int dir, const std::string& manifest) {
  const json value = json::parse(TRY(read_file_at(dir, manifest, kMaxManifest)), nullptr, false);
  const ImageFiles files = TRY(listed_files(manifest, value));
  SealedFolder folder;
  folder.about = value.value("about", json::object());
  if (!folder.about.is_object()) return fail("{} cannot be understood", manifest);
  for (const auto& [name, file] : files)
    folder.files[name] = TRY(open_beneath(dir, name, O_RDONLY));
  TRY(verify_files(dir, files));
  return folder;
}

}  // namespace agent_vm
