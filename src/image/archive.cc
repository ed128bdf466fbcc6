#include "image/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#include <memory>

#include "base/text.h"

namespace agent_vm {
namespace {

constexpr std::size_t kBlockSize = 1U << 20U;

// Names in package archives are UTF-8, and libarchive converts them to the locale's encoding: under
// the C locale, which services and CI have, names that are not ASCII would be errors. (C.UTF-8 is a
// part of glibc.) For this thread, as long as it lives.
class Utf8Names {
 public:
  Utf8Names() : locale_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (locale_ != nullptr) old_ = ::uselocale(locale_);
  }
  ~Utf8Names() {
    if (locale_ == nullptr) return;
    ::uselocale(old_);
    ::freelocale(locale_);
  }
  Utf8Names(const Utf8Names&) = delete;
  Utf8Names& operator=(const Utf8Names&) = delete;

 private:
  locale_t locale_;
  locale_t old_ = nullptr;
};

struct ArchiveCloser {
  void operator()(archive* a) const { ::archive_read_free(a); }
};
using Archive = std::unique_ptr<archive, ArchiveCloser>;

tl::unexpected<Error> fail_archive(archive* a, std::string_view what) {
  const char* text = ::archive_error_string(a);
  return fail("cannot read {}: {}", what, text != nullptr ? text : "not an archive");
}

Result<Archive> open_tar(const std::string& path) {
  Archive a(::archive_read_new());
  ::archive_read_support_format_tar(a.get());
  if (::archive_read_open_filename(a.get(), path.c_str(), kBlockSize) != ARCHIVE_OK) {
    return fail_archive(a.get(), path);
  }
  return a;
}

// False at the end of the archive.
Result<bool> next(archive* a, archive_entry*& entry, std::string_view name) {
  const int status = ::archive_read_next_header(a, &entry);
  if (status == ARCHIVE_EOF) return false;
  if (status != ARCHIVE_OK) return fail_archive(a, name);
  return true;
}

Result<std::string> read_content(archive* a, archive_entry* entry, std::string_view name) {
  std::string content(static_cast<std::size_t>(::archive_entry_size(entry)), '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const la_ssize_t got = ::archive_read_data(a, content.data() + done, content.size() - done);
    if (got < 0) return fail_archive(a, name);
    if (got == 0) return fail("{} ends early", name);
    done += static_cast<std::size_t>(got);
  }
  return content;
}

Result<Node> to_node(archive_entry* entry, const std::string& path) {
  Node node;
  node.mode = ::archive_entry_perm(entry) & 07777U;
  node.uid = static_cast<std::uint32_t>(::archive_entry_uid(entry));
  node.gid = static_cast<std::uint32_t>(::archive_entry_gid(entry));
  if (const char* link = ::archive_entry_hardlink(entry)) {
    node.type = NodeType::kHardLink;
    node.target = TRY(normal_path(link));
    return node;
  }
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  ::archive_entry_xattr_reset(entry);
  while (::archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    node.xattrs.emplace(name, std::string(static_cast<const char*>(value), size));
  }
  switch (::archive_entry_filetype(entry)) {
    case AE_IFREG:
      node.size = static_cast<std::uint64_t>(::archive_entry_size(entry));
      node.content = ArchiveMember{path};
      break;
    case AE_IFDIR:
      node.type = NodeType::kDirectory;
      break;
    case AE_IFLNK:
      node.type = NodeType::kSymlink;
      node.target = ::archive_entry_symlink(entry);
      break;
    case AE_IFIFO:
      node.type = NodeType::kFifo;
      break;
    case AE_IFCHR:
    case AE_IFBLK:
      node.type = NodeType::kDevice;
      break;
    default:
      return fail("{} is of a type that an image cannot hold", escape_line(path));
  }
  return node;
}

}  // namespace

Result<Tree> read_tar_tree(const std::string& tar_path) {
  const Utf8Names utf8;
  Archive a = TRY(open_tar(tar_path));
  Tree tree;
  archive_entry* entry = nullptr;
  while (TRY(next(a.get(), entry, tar_path))) {
    const std::string path = TRY(normal_path(::archive_entry_pathname(entry)));
    if (path.empty()) continue;  // the root itself
    Node node = TRY(to_node(entry, path));
    TRY(tree.make_parents(path));
    TRY(tree.put(path, std::move(node)));
  }
  return tree;
}

Result<std::map<std::string, std::string>> read_tar_members(const std::string& tar_path,
                                                            const std::set<std::string>& paths) {
  const Utf8Names utf8;
  Archive a = TRY(open_tar(tar_path));
  std::map<std::string, std::string> found;
  archive_entry* entry = nullptr;
  while (found.size() < paths.size() && TRY(next(a.get(), entry, tar_path))) {
    const std::string path = TRY(normal_path(::archive_entry_pathname(entry)));
    if (!paths.contains(path) || ::archive_entry_filetype(entry) != AE_IFREG) continue;
    found[path] = TRY(read_content(a.get(), entry, path));
  }
  for (const auto& path : paths) {
    if (!found.contains(path)) return fail("the packages brought no {}", escape_line(path));
  }
  return found;
}

Status stream_tar(const std::string& tar_path,
                  const std::function<Result<BlockSink>(const std::string& path)>& open) {
  const Utf8Names utf8;
  Archive a = TRY(open_tar(tar_path));
  archive_entry* entry = nullptr;
  while (TRY(next(a.get(), entry, tar_path))) {
    if (::archive_entry_filetype(entry) != AE_IFREG || ::archive_entry_hardlink(entry) != nullptr) {
      continue;
    }
    const std::string path = TRY(normal_path(::archive_entry_pathname(entry)));
    const BlockSink sink = TRY(open(path));
    if (!sink) continue;
    const void* block = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    int status = ARCHIVE_OK;
    while ((status = ::archive_read_data_block(a.get(), &block, &size, &offset)) == ARCHIVE_OK) {
      TRY(sink(static_cast<std::uint64_t>(offset),
               std::string_view(static_cast<const char*>(block), size)));
    }
    if (status != ARCHIVE_EOF) return fail_archive(a.get(), path);
  }
  return {};
}

Result<std::string> read_deb_control(const std::string& deb_path) {
  Archive outer(::archive_read_new());
  ::archive_read_support_format_ar(outer.get());
  if (::archive_read_open_filename(outer.get(), deb_path.c_str(), kBlockSize) != ARCHIVE_OK) {
    return fail_archive(outer.get(), deb_path);
  }
  archive_entry* entry = nullptr;
  while (TRY(next(outer.get(), entry, deb_path))) {
    if (!std::string_view(::archive_entry_pathname(entry)).starts_with("control.tar")) continue;
    const std::string control_tar = TRY(read_content(outer.get(), entry, deb_path));
    Archive inner(::archive_read_new());
    ::archive_read_support_format_tar(inner.get());
    ::archive_read_support_filter_all(inner.get());
    if (::archive_read_open_memory(inner.get(), control_tar.data(), control_tar.size()) !=
        ARCHIVE_OK) {
      return fail_archive(inner.get(), deb_path);
    }
    while (TRY(next(inner.get(), entry, deb_path))) {
      if (TRY(normal_path(::archive_entry_pathname(entry))) == "/control") {
        return read_content(inner.get(), entry, deb_path);
      }
    }
  }
  return fail("{} is not a Debian package: it has no control file", deb_path);
}

}  // namespace agent_vm
