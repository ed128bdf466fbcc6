#include "image/ext4.h"

// Debian 12's com_err.h is not made for C++.
extern "C" {
#include <et/com_err.h>
}
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>

#include "base/fd.h"
#include "base/text.h"
#include "image/archive.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kBytesPerInode = 16384;
constexpr std::uint64_t kJournalMegabytes = 32;
constexpr std::uint64_t kFree = 256ULL << 20;
constexpr std::uint64_t kGranule = 16ULL << 20;

// 32 hexadecimal digits, from anything, in the form of a UUID.
std::string uuid_from(std::string_view text) {
  const std::string hex = sha256_hex(text);
  return fmt::format("{}-{}-4{}-a{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(13, 3),
                     hex.substr(17, 3), hex.substr(20, 12));
}

tl::unexpected<Error> fail_ext4(errcode_t code, std::string_view path) {
  return fail("cannot write {} into the root file system: {}", escape_line(path),
              ::error_message(code));
}

// Calls libext2fs; a directory that is full is made larger, once.
template <typename F>
errcode_t with_room(ext2_filsys fs, ext2_ino_t directory, F&& call) {
  errcode_t code = call();
  if (code == EXT2_ET_DIR_NO_SPACE) {
    code = ::ext2fs_expand_dir(fs, directory);
    if (code == 0) code = call();
  }
  return code;
}

class FileWriter {
 public:
  FileWriter() = default;
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter() {
    if (file_ != nullptr) static_cast<void>(::ext2fs_file_close(file_));
  }

  errcode_t open(ext2_filsys fs, ext2_ino_t inode) {
    return ::ext2fs_file_open(fs, inode, EXT2_FILE_WRITE, &file_);
  }
  // Blocks of zeros become holes.
  errcode_t write(std::uint64_t offset, std::string_view bytes) {
    while (!bytes.empty()) {
      const auto part = bytes.substr(0, kBlock - offset % kBlock);
      const bool zero = std::ranges::all_of(part, [](char c) { return c == 0; });
      if (!zero) {
        if (const auto code = ::ext2fs_file_llseek(file_, offset, EXT2_SEEK_SET, nullptr)) {
          return code;
        }
        unsigned written = 0;
        const auto code =
            ::ext2fs_file_write(file_, part.data(), static_cast<unsigned>(part.size()), &written);
        if (code != 0) return code;
        if (written != part.size()) return EXT2_ET_SHORT_WRITE;
      }
      offset += part.size();
      bytes.remove_prefix(part.size());
    }
    return 0;
  }
  errcode_t close(std::uint64_t size) {
    const auto code = ::ext2fs_file_set_size2(file_, static_cast<ext2_off64_t>(size));
    const auto closed = ::ext2fs_file_close(std::exchange(file_, nullptr));
    return code != 0 ? code : closed;
  }

 private:
  ext2_file_t file_ = nullptr;
};

class Ext4Writer {
 public:
  Ext4Writer(const Tree& tree, const Ext4Options& options) : tree_(tree), options_(options) {}
  Ext4Writer(const Ext4Writer&) = delete;
  Ext4Writer& operator=(const Ext4Writer&) = delete;
  ~Ext4Writer() {
    if (fs_ != nullptr) ::ext2fs_free(fs_);
  }

  Status open(const std::string& image) {
    static_cast<void>(::add_error_table(&et_ext2_error_table));  // texts of error_message()
    const auto code = ::ext2fs_open2(image.c_str(), nullptr, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0,
                                     unix_io_manager, &fs_);
    if (code != 0) return fail("cannot open {}: {}", image, ::error_message(code));
    if (const auto bitmaps = ::ext2fs_read_bitmaps(fs_)) return fail_ext4(bitmaps, image);
    fs_->now = static_cast<time_t>(options_.time);
    inodes_[""] = EXT2_ROOT_INO;
    return {};
  }

  // The inodes and directories, without the files' contents.
  Status write_nodes() {
    for (const auto& [path, node] : tree_.nodes()) {
      const auto slash = path.rfind('/');
      const ext2_ino_t parent = inodes_.at(path.substr(0, slash));
      const std::string name = path.substr(slash + 1);
      if (const auto code = write_node(path, name, parent, node)) return fail_ext4(code, path);
    }
    return {};
  }

  Status write_contents(const std::string& tar_path) {
    std::map<std::string, std::vector<std::string>> members;  // of the archive -> paths
    for (const auto& [path, node] : tree_.nodes()) {
      if (node.type != NodeType::kFile) continue;
      total_ += node.size;
      if (const auto* text = std::get_if<std::string>(&node.content)) {
        TRY(write_text(path, *text));
      } else if (const auto* host = std::get_if<HostFile>(&node.content)) {
        TRY(write_host_file(path, *host, node.size));
      } else {
        members[std::get<ArchiveMember>(node.content).path].push_back(path);
      }
    }
    if (members.empty()) return {};
    TRY(stream_tar(tar_path, [&](const std::string& member) -> Result<BlockSink> {
      const auto wanted = members.extract(member);
      if (wanted.empty()) return BlockSink();
      return sink_for(wanted.mapped());
    }));
    if (!members.empty()) {
      return fail("{} holds no {}", tar_path, escape_line(members.begin()->first));
    }
    TRY(finish_current());
    return {};
  }

  // Every inode gets its owner and the one time last, because making an entry in a directory and
  // writing a file touch them.
  Status finish() {
    for (const auto& [path, inode] : inodes_) {
      const Node* node = tree_.find(path);
      if (const auto code = stamp(inode, node)) return fail_ext4(code, path);
    }
    if (const auto code = stamp(EXT2_GOOD_OLD_FIRST_INO, nullptr)) {  // lost+found
      return fail_ext4(code, "/lost+found");
    }
    fs_->super->s_wtime = static_cast<__u32>(options_.time);
    fs_->super->s_kbytes_written = 0;
    const auto code = ::ext2fs_close_free(&fs_);
    if (code != 0) return fail_ext4(code, "the last blocks");
    return {};
  }

 private:
  errcode_t write_node(const std::string& path, const std::string& name, ext2_ino_t parent,
                       const Node& node) {
    ext2_ino_t inode = 0;
    if (node.type == NodeType::kHardLink) {
      const auto target = inodes_.find(node.target);
      if (target == inodes_.end()) return EXT2_ET_FILE_NOT_FOUND;
      inode = target->second;
      if (const auto code = add_link(inode)) return code;
      return link(parent, name, inode, EXT2_FT_REG_FILE);
    }
    const int mode = node.type == NodeType::kDirectory ? LINUX_S_IFDIR : LINUX_S_IFREG;
    if (const auto code = ::ext2fs_new_inode(fs_, parent, mode, nullptr, &inode)) return code;
    errcode_t code = 0;
    switch (node.type) {
      case NodeType::kDirectory:
        code = with_room(fs_, parent,
                         [&] { return ::ext2fs_mkdir(fs_, parent, inode, name.c_str()); });
        break;
      case NodeType::kSymlink:
        code = with_room(fs_, parent, [&] {
          return ::ext2fs_symlink(fs_, parent, inode, name.c_str(), node.target.c_str());
        });
        break;
      case NodeType::kFile:
        code = make_file(parent, name, inode, LINUX_S_IFREG, EXT2_FT_REG_FILE);
        break;
      case NodeType::kFifo:
        code = make_file(parent, name, inode, LINUX_S_IFIFO, EXT2_FT_FIFO);
        break;
      default:
        return EXT2_ET_UNIMPLEMENTED;
    }
    if (code == 0 && !node.xattrs.empty()) code = write_xattrs(inode, node);
    inodes_[path] = inode;
    return code;
  }

  errcode_t link(ext2_ino_t parent, const std::string& name, ext2_ino_t inode, int type) {
    return with_room(fs_, parent,
                     [&] { return ::ext2fs_link(fs_, parent, name.c_str(), inode, type); });
  }

  errcode_t make_file(ext2_ino_t parent, const std::string& name, ext2_ino_t inode, unsigned format,
                      int type) {
    if (const auto code = link(parent, name, inode, type)) return code;
    ::ext2fs_inode_alloc_stats2(fs_, inode, +1, 0);
    ext2_inode raw{};
    raw.i_mode = static_cast<__u16>(format | 0600U);
    raw.i_links_count = 1;
    if (format == LINUX_S_IFREG) {
      ext2_extent_handle_t handle = nullptr;
      if (const auto code = ::ext2fs_extent_open2(fs_, inode, &raw, &handle)) return code;
      ::ext2fs_extent_free(handle);
    }
    return ::ext2fs_write_new_inode(fs_, inode, &raw);
  }

  errcode_t add_link(ext2_ino_t inode) {
    ext2_inode raw{};
    if (const auto code = ::ext2fs_read_inode(fs_, inode, &raw)) return code;
    ++raw.i_links_count;
    return ::ext2fs_write_inode(fs_, inode, &raw);
  }

  errcode_t write_xattrs(ext2_ino_t inode, const Node& node) {
    ext2_xattr_handle* handle = nullptr;
    if (const auto code = ::ext2fs_xattrs_open(fs_, inode, &handle)) return code;
    errcode_t code = ::ext2fs_xattrs_read(handle);
    for (const auto& [name, value] : node.xattrs) {
      if (code == 0) code = ::ext2fs_xattr_set(handle, name.c_str(), value.data(), value.size());
    }
    const auto closed = ::ext2fs_xattrs_close(&handle);
    return code != 0 ? code : closed;
  }

  errcode_t stamp(ext2_ino_t inode, const Node* node) {
    ext2_inode_large raw{};
    auto* base = reinterpret_cast<ext2_inode*>(&raw);
    if (const auto code = ::ext2fs_read_inode_full(fs_, inode, base, sizeof raw)) return code;
    const auto time = static_cast<__u32>(options_.time);
    raw.i_atime = raw.i_mtime = raw.i_ctime = raw.i_crtime = time;
    raw.i_atime_extra = raw.i_mtime_extra = raw.i_ctime_extra = raw.i_crtime_extra = 0;
    raw.i_generation = 0;
    if (node != nullptr && node->type != NodeType::kHardLink) {
      const unsigned bits = node->type == NodeType::kSymlink ? 0777U : node->mode;
      raw.i_mode = static_cast<__u16>((raw.i_mode & LINUX_S_IFMT) | bits);
      raw.i_uid = static_cast<__u16>(node->uid & 0xffffU);
      raw.osd2.linux2.l_i_uid_high = static_cast<__u16>(node->uid >> 16U);
      raw.i_gid = static_cast<__u16>(node->gid & 0xffffU);
      raw.osd2.linux2.l_i_gid_high = static_cast<__u16>(node->gid >> 16U);
    }
    return ::ext2fs_write_inode_full(fs_, inode, base, sizeof raw);
  }

  Status written(std::uint64_t bytes) {
    done_ += bytes;
    if (!options_.progress || done_ - reported_ < (8U << 20U)) return {};
    reported_ = done_;
    const auto expected = std::max<std::uint64_t>(total_, 1);
    return options_.progress(static_cast<double>(done_) / static_cast<double>(expected));
  }

  Status write_text(const std::string& path, const std::string& text) {
    FileWriter writer;
    if (const auto code = writer.open(fs_, inodes_.at(path))) return fail_ext4(code, path);
    if (const auto code = writer.write(0, text)) return fail_ext4(code, path);
    if (const auto code = writer.close(text.size())) return fail_ext4(code, path);
    return written(text.size());
  }

  Status write_host_file(const std::string& path, const HostFile& host, std::uint64_t size) {
    // What a package of npm may hold at most, in one file.
    constexpr std::size_t kMaxFile = 1U << 30U;
    const std::string text = TRY(read_file(host.path, kMaxFile));
    if (text.size() != size) return fail("{} changed while it was read", host.path);
    return write_text(path, text);
  }

  struct Current {
    std::vector<std::unique_ptr<FileWriter>> writers;
    std::vector<std::string> paths;
    bool is_pyc = false;
  };

  // One member may be the content of several files.
  Result<BlockSink> sink_for(const std::vector<std::string>& paths) {
    TRY(finish_current());
    current_.paths = paths;
    current_.is_pyc = paths.front().ends_with(".pyc");
    for (const auto& path : paths) {
      current_.writers.push_back(std::make_unique<FileWriter>());
      if (const auto code = current_.writers.back()->open(fs_, inodes_.at(path))) {
        return fail_ext4(code, path);
      }
    }
    return BlockSink([this](std::uint64_t offset, std::string_view block) -> Status {
      const std::string patched = current_.is_pyc && offset == 0 ? retimed(block) : std::string();
      const std::string_view bytes = patched.empty() ? block : patched;
      for (std::size_t i = 0; i < current_.writers.size(); ++i) {
        if (const auto code = current_.writers[i]->write(offset, bytes)) {
          return fail_ext4(code, current_.paths[i]);
        }
      }
      return written(block.size());
    });
  }

  Status finish_current() {
    for (std::size_t i = 0; i < current_.writers.size(); ++i) {
      const auto& path = current_.paths[i];
      if (const auto code = current_.writers[i]->close(tree_.find(path)->size)) {
        return fail_ext4(code, path);
      }
    }
    current_ = {};
    return {};
  }

  // Python takes compiled code as current while its header names the time of the source, which is
  // now the image's (PEP 552: magic, flags, time, size; 32 bits each, flags 0: time-based).
  std::string retimed(std::string_view block) const {
    std::string copy(block);
    if (copy.size() < 16 || copy.substr(4, 4) != std::string(4, '\0')) return copy;
    for (unsigned i = 0; i < 4; ++i) {
      copy[8 + i] = static_cast<char>((options_.time >> (8U * i)) & 0xffU);
    }
    return copy;
  }

  const Tree& tree_;
  const Ext4Options& options_;
  ext2_filsys fs_ = nullptr;
  std::map<std::string, ext2_ino_t> inodes_;  // of everything but hard links
  Current current_;
  std::uint64_t total_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t reported_ = 0;
};

// An empty file system. Every property is given, because /etc/mke2fs.conf differs between hosts.
Status make_empty(const std::string& image, std::uint64_t size, const Ext4Options& options) {
  Fd fd(::open(image.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "cannot make {}", image);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    return fail_errno(errno, "cannot make {}", image);
  }
  Command command;
  command.argv = {
      "mke2fs",
      "-q",
      "-F",
      "-t",
      "ext4",
      "-b",
      std::to_string(kBlock),
      "-I",
      "256",
      "-i",
      std::to_string(kBytesPerInode),
      "-m",
      "0",
      "-L",
      "agent-vm",
      "-O",
      "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
      "large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
      "-J",
      fmt::format("size={}", kJournalMegabytes),
      "-U",
      uuid_from(options.identity),
      "-E",
      fmt::format("hash_seed={},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
                  uuid_from("hash seed " + options.identity)),
      image};
  command.extra_environment = {"MKE2FS_CONFIG=/dev/null", "PATH=/usr/sbin:/sbin:/usr/bin:/bin",
                               fmt::format("E2FSPROGS_FAKE_TIME={}", options.time),
                               fmt::format("SOURCE_DATE_EPOCH={}", options.time)};
  TRY(run_checked(command));
  return {};
}

}  // namespace

std::uint64_t ext4_size_for(const Tree& tree) {
  std::uint64_t bytes = 0;
  for (const auto& [path, node] : tree.nodes()) {
    bytes += (node.size + kBlock - 1) / kBlock * kBlock;
    if (node.type == NodeType::kDirectory) bytes += kBlock;
  }
  const std::uint64_t inodes = tree.nodes().size() + tree.nodes().size() / 4;
  bytes += bytes / 50 + inodes * 256 + (kJournalMegabytes << 20U) + kFree;
  bytes = std::max(bytes, inodes * kBytesPerInode);
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

Status write_ext4(const Tree& tree, const std::string& tar_path, const std::string& image,
                  const Ext4Options& options) {
  TRY(make_empty(image, ext4_size_for(tree), options));
  Ext4Writer writer(tree, options);
  TRY(writer.open(image));
  TRY(writer.write_nodes());
  TRY(writer.write_contents(tar_path));
  return writer.finish();
}

}  // namespace agent_vm
