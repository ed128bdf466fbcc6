// A temporary workspace for tests, removed afterwards.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "workspace/root.h"

namespace agent_vm::workspace {

class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "workspace-XXXXXX").string();
    base_ = ::mkdtemp(pattern.data());
    std::filesystem::create_directory(path());
  }
  ~TestFolder() { std::filesystem::remove_all(base_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  // The workspace is a folder in a folder, so that there is an outside to escape to.
  std::filesystem::path path() const { return base_ / "ws"; }
  std::filesystem::path outside() const { return base_; }
  Root root() const { return std::move(*Root::open(path().string())); }

  void put(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((path() / name).parent_path());
    std::ofstream(path() / name, std::ios::binary) << content;
  }
  std::string get(const std::string& name) const {
    std::ostringstream out;
    out << std::ifstream(path() / name, std::ios::binary).rdbuf();
    return out.str();
  }

 private:
  std::filesystem::path base_;
};

}  // namespace agent_vm::workspace
