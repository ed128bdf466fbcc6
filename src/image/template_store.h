// Templates: the state of a guest that has booted from an image and has no identity yet, so that
// any VM of that image and machine can go on from there. They are part of the image's folder, and
// removed with it: <image>/templates/<key>/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "os/lock.h"

namespace agent_vm {

namespace template_files {
inline constexpr const char* kPages = "pages";      // see memory_pages.h
inline constexpr const char* kMap = "map";          // the same
inline constexpr const char* kDevices = "devices";  // QEMU's migration stream, without the memory
inline constexpr const char* kRoot = "root.qcow2";  // what the boot wrote, over the image's root
}  // namespace template_files

// One that was whole when it was opened.
struct Template {
  std::string key;
  Fd pages;
  Fd map;
  Fd devices;
  Fd root;
};

// One that is being made, under a name that nobody opens. Unfinished, it is removed by the next
// maker, or with the image.
class TemplateDraft {
 public:
  // Makes an empty file of the template, open for writing and reading.
  Result<Fd> create(const char* name) const;
  // Gives it its name, in the place of a damaged one. Everything must have been written.
  Status commit();

 private:
  friend class TemplateStore;
  TemplateDraft(std::string key, Fd parent, Fd directory, DirectoryLock lock)
      : key_(std::move(key)),
        parent_(std::move(parent)),
        directory_(std::move(directory)),
        lock_(std::move(lock)) {}

  std::string key_;
  Fd parent_;
  Fd directory_;
  DirectoryLock lock_;
};

class TemplateStore {
 public:
  explicit TemplateStore(std::string image_directory) : image_(std::move(image_directory)) {}

  // kNotFound when there is none; another error when it is damaged.
  Result<Template> open(const std::string& key) const;
  // Nothing when somebody else is making it at this moment.
  Result<std::optional<TemplateDraft>> begin(const std::string& key) const;

 private:
  std::string image_;
};

}  // namespace agent_vm
