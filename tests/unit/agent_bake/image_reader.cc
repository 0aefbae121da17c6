#include "tests/unit/agent_bake/image_reader.h"

#include <ext2fs/ext2fs.h>

#include <cstdio>
#include <utility>
#include <vector>

#include "common/base/log.h"

namespace bunker::agent::test {
namespace {

constexpr uint64_t kMaxContentBytes = 64 << 20;

struct Named {
  std::string name;
  ext2_ino_t inode;
};

int TakeEntry(ext2_dir_entry* entry, int, int, char*, void* out) {
  const std::string name(entry->name, ext2fs_dirent_name_len(entry));
  if (name != "." && name != "..") {
    static_cast<std::vector<Named>*>(out)->push_back(Named{name, entry->inode});
  }
  return 0;
}

int TakeXattr(char* name, char* value, size_t size, void* out) {
  (*static_cast<std::map<std::string, std::string>*>(out))[name] = std::string(value, size);
  return 0;
}

std::string ReadContent(ext2_filsys fs, ext2_ino_t inode, uint64_t size) {
  ext2_file_t file;
  BUNKER_CHECK(ext2fs_file_open(fs, inode, 0, &file) == 0);
  std::string content(size, '\0');
  uint64_t done = 0;
  while (done < size) {
    unsigned int got = 0;
    BUNKER_CHECK(ext2fs_file_read(file, content.data() + done,
                                  static_cast<unsigned int>(size - done), &got) == 0);
    BUNKER_CHECK(got > 0);
    done += got;
  }
  ext2fs_file_close(file);
  return content;
}

char TypeOf(uint16_t mode) {
  if (LINUX_S_ISREG(mode)) return 'f';
  if (LINUX_S_ISDIR(mode)) return 'd';
  if (LINUX_S_ISLNK(mode)) return 'l';
  if (LINUX_S_ISCHR(mode)) return 'c';
  if (LINUX_S_ISBLK(mode)) return 'b';
  if (LINUX_S_ISFIFO(mode)) return 'p';
  return '?';
}

ImageEntry Describe(ext2_filsys fs, ext2_ino_t number) {
  ext2_inode_large inode;
  BUNKER_CHECK(ext2fs_read_inode_full(fs, number, reinterpret_cast<ext2_inode*>(&inode),
                                      sizeof(inode)) == 0);
  ImageEntry entry;
  entry.type = TypeOf(inode.i_mode);
  entry.mode = inode.i_mode & 07777;
  entry.uid = inode.i_uid | (static_cast<uint32_t>(inode.osd2.linux2.l_i_uid_high) << 16);
  entry.gid = inode.i_gid | (static_cast<uint32_t>(inode.osd2.linux2.l_i_gid_high) << 16);
  entry.mtime =
      static_cast<int32_t>(inode.i_mtime) + (static_cast<int64_t>(inode.i_mtime_extra & 3) << 32);
  entry.mtime_nanoseconds = inode.i_mtime_extra >> 2;
  entry.size = EXT2_I_SIZE(&inode);
  entry.inode = number;
  entry.links = inode.i_links_count;
  entry.flags = inode.i_flags;
  entry.blocks = inode.i_blocks;
  if (entry.type == 'f' && entry.size <= kMaxContentBytes) {
    entry.content = ReadContent(fs, number, entry.size);
  } else if (entry.type == 'l') {
    entry.content = entry.size < 60
                        ? std::string(reinterpret_cast<char*>(inode.i_block), entry.size)
                        : ReadContent(fs, number, entry.size);
  } else if (entry.type == 'c' || entry.type == 'b') {
    const uint32_t old = inode.i_block[0];
    const uint32_t big = inode.i_block[1];
    entry.major = old ? (old >> 8) & 0xff : (big & 0xfff00) >> 8;
    entry.minor = old ? old & 0xff : (big & 0xff) | ((big >> 12) & 0xfff00);
  }
  ext2_xattr_handle* handle = nullptr;
  BUNKER_CHECK(ext2fs_xattrs_open(fs, number, &handle) == 0 && ext2fs_xattrs_read(handle) == 0);
  ext2fs_xattrs_iterate(handle, &TakeXattr, &entry.xattrs);
  ext2fs_xattrs_close(&handle);
  return entry;
}

}  // namespace

std::map<std::string, ImageEntry> ReadImage(const std::string& path) {
  ext2_filsys fs = nullptr;
  BUNKER_CHECK(ext2fs_open(path.c_str(), EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs) == 0);
  std::map<std::string, ImageEntry> image;
  std::vector<std::pair<std::string, ext2_ino_t>> todo = {{"", EXT2_ROOT_INO}};
  while (!todo.empty()) {
    const auto [at, number] = todo.back();
    todo.pop_back();
    ImageEntry entry = Describe(fs, number);
    if (entry.type == 'd') {
      std::vector<Named> children;
      BUNKER_CHECK(ext2fs_dir_iterate(fs, number, 0, nullptr, &TakeEntry, &children) == 0);
      for (const Named& child : children) {
        todo.emplace_back(at.empty() ? child.name : at + "/" + child.name, child.inode);
      }
    }
    image[at] = std::move(entry);
  }
  ext2fs_close_free(&fs);
  return image;
}

std::string RunCommand(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  BUNKER_CHECK(pipe != nullptr);
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, count);
  return pclose(pipe) == 0 ? output : std::string();
}

std::string CheckImage(const std::string& path) {
  FILE* pipe = popen(("e2fsck -fn " + path + " 2>&1").c_str(), "r");
  BUNKER_CHECK(pipe != nullptr);
  std::string output;
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, count);
  return pclose(pipe) == 0 ? "" : output;
}

}  // namespace bunker::agent::test
