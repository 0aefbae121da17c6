#include "agent/scan/ext4_reader.h"

#include <et/com_err.h>
#include <ext2fs/ext2fs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace bunker::agent {
namespace {

// The library's way to the bytes: pread of the descriptor whose number is the file's name.
struct FdIo {
  static errcode_t Open(const char* name, int, io_channel* channel) {
    auto* made = new struct_io_channel();
    made->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    made->manager = Manager();
    made->name = strdup(name);
    made->block_size = 1024;
    made->refcount = 1;
    *channel = made;
    return 0;
  }
  static errcode_t Close(io_channel channel) {
    if (--channel->refcount > 0) return 0;
    free(channel->name);
    delete channel;
    return 0;
  }
  static errcode_t SetBlockSize(io_channel channel, int bytes) {
    channel->block_size = bytes;
    return 0;
  }
  static errcode_t Read64(io_channel channel, unsigned long long block, int count, void* data) {
    const int fd = std::atoi(channel->name);
    const size_t wanted = count < 0 ? static_cast<size_t>(-static_cast<int64_t>(count))
                                    : static_cast<size_t>(count) * channel->block_size;
    uint64_t at = block * static_cast<uint64_t>(channel->block_size);
    size_t done = 0;
    while (done < wanted) {
      const ssize_t got =
          pread(fd, static_cast<char*>(data) + done, wanted - done, static_cast<off_t>(at + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno;
      if (got == 0) return EXT2_ET_SHORT_READ;
      done += static_cast<size_t>(got);
    }
    return 0;
  }
  static errcode_t Read(io_channel channel, unsigned long block, int count, void* data) {
    return Read64(channel, block, count, data);
  }
  static errcode_t Write(io_channel, unsigned long, int, const void*) { return EROFS; }
  static errcode_t Write64(io_channel, unsigned long long, int, const void*) { return EROFS; }
  static errcode_t Flush(io_channel) { return 0; }
  static io_manager Manager() {
    static struct_io_manager manager = [] {
      struct_io_manager made = {};
      made.magic = EXT2_ET_MAGIC_IO_MANAGER;
      made.name = "descriptor";
      made.open = &Open;
      made.close = &Close;
      made.set_blksize = &SetBlockSize;
      made.read_blk = &Read;
      made.write_blk = &Write;
      made.flush = &Flush;
      made.read_blk64 = &Read64;
      made.write_blk64 = &Write64;
      return made;
    }();
    return &manager;
  }
};

absl::Status Failed(const char* what, errcode_t code) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": libext2fs error ", code));
}

struct Listing {
  size_t max_entries;
  bool full = false;
  std::vector<Ext4Reader::Entry> entries;
};

int TakeEntry(ext2_dir_entry* entry, int, int, char*, void* out) {
  auto* listing = static_cast<Listing*>(out);
  const std::string name(entry->name, ext2fs_dirent_name_len(entry));
  if (entry->inode == 0 || name == "." || name == "..") return 0;
  if (listing->entries.size() >= listing->max_entries) {
    listing->full = true;
    return DIRENT_ABORT;
  }
  const int type = ext2fs_dirent_file_type(entry);
  listing->entries.push_back({name, entry->inode,
                              type == EXT2_FT_DIR        ? Ext4Reader::Type::kFolder
                              : type == EXT2_FT_REG_FILE ? Ext4Reader::Type::kFile
                                                         : Ext4Reader::Type::kOther});
  return 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ext4Reader>> Ext4Reader::Open(int fd) {
  std::unique_ptr<Ext4Reader> reader(new Ext4Reader());
  const errcode_t code = ext2fs_open(std::to_string(fd).c_str(), EXT2_FLAG_64BITS, 0, 0,
                                     FdIo::Manager(), &reader->filesystem_);
  if (code != 0) return Failed("opening the image", code);
  return reader;
}

Ext4Reader::~Ext4Reader() {
  if (filesystem_ != nullptr) ext2fs_close_free(&filesystem_);
}

uint32_t Ext4Reader::root() {
  return EXT2_ROOT_INO;
}

absl::StatusOr<uint32_t> Ext4Reader::Find(const std::string& path) const {
  ext2_ino_t inode = 0;
  const errcode_t code =
      ext2fs_namei_follow(filesystem_, EXT2_ROOT_INO, EXT2_ROOT_INO, path.c_str(), &inode);
  if (code == EXT2_ET_FILE_NOT_FOUND || code == EXT2_ET_SYMLINK_LOOP ||
      code == EXT2_ET_NO_DIRECTORY) {
    return absl::NotFoundError(path);
  }
  if (code != 0) return Failed(path.c_str(), code);
  return inode;
}

absl::StatusOr<std::string> Ext4Reader::Read(uint32_t number, size_t max_bytes, bool whole) const {
  ext2_inode inode;
  errcode_t code = ext2fs_read_inode(filesystem_, number, &inode);
  if (code != 0) return Failed("reading an inode", code);
  if (!LINUX_S_ISREG(inode.i_mode)) return absl::NotFoundError("not a regular file");
  const uint64_t size = EXT2_I_SIZE(&inode);
  if (whole && size > max_bytes)
    return absl::ResourceExhaustedError(absl::StrCat(size, " bytes, at most ", max_bytes));
  ext2_file_t file;
  code = ext2fs_file_open(filesystem_, number, 0, &file);
  if (code != 0) return Failed("opening a file", code);
  std::string content(static_cast<size_t>(std::min<uint64_t>(size, max_bytes)), '\0');
  size_t done = 0;
  while (code == 0 && done < content.size()) {
    unsigned int got = 0;
    const size_t left = std::min<size_t>(content.size() - done, 1 << 20);
    code = ext2fs_file_read(file, content.data() + done, static_cast<unsigned int>(left), &got);
    if (code == 0 && got == 0) break;
    done += got;
  }
  ext2fs_file_close(file);
  if (code != 0) return Failed("reading a file", code);
  content.resize(done);
  return content;
}

absl::StatusOr<std::vector<Ext4Reader::Entry>> Ext4Reader::List(uint32_t inode,
                                                                size_t max_entries) const {
  Listing listing{max_entries, false, {}};
  const errcode_t code = ext2fs_dir_iterate(filesystem_, inode, 0, nullptr, &TakeEntry, &listing);
  if (code == EXT2_ET_NO_DIRECTORY) return absl::NotFoundError("not a folder");
  if (code != 0) return Failed("reading a folder", code);
  if (listing.full)
    return absl::ResourceExhaustedError(
        absl::StrCat("a folder of more than ", max_entries, " entries"));
  return std::move(listing.entries);
}

}  // namespace bunker::agent
