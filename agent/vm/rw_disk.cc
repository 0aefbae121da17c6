#include "agent/vm/rw_disk.h"

#include <errno.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

// This header has no linkage guard of its own.
extern "C" {
#include <et/com_err.h>
}

namespace bunker::agent {
namespace {

constexpr uint64_t kBlockBytes = 4096;
// Package trees hold many small files: twice as many inodes as the usual one per 16 KiB.
constexpr uint64_t kBytesPerInode = 8192;
// lost+found holds room for what a check might put there, as mke2fs does.
constexpr int kLostAndFoundBlocks = 4;

absl::Status Check(errcode_t error, std::string_view what) {
  if (error == 0) return absl::OkStatus();
  if (error > 0 && error < 4096) return ErrnoError(static_cast<int>(error), what);
  return absl::InternalError(absl::StrCat(absl::string_view(what.data(), what.size()), ": ",
                                          error_message(error)));
}

void RegisterErrorTable() {
  static const bool registered = [] {
    initialize_ext2_error_table();
    return true;
  }();
  (void)registered;
}

// Owner of an open file system; what isn't closed by name is thrown away.
class FileSystem {
 public:
  FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;
  ~FileSystem() {
    if (fs_ != nullptr) ext2fs_free(fs_);
  }
  ext2_filsys get() const { return fs_; }
  ext2_filsys* out() { return &fs_; }
  absl::Status Close() {
    return Check(ext2fs_close_free(&fs_), "write the disk's file system");
  }

 private:
  ext2_filsys fs_ = nullptr;
};

ext2_super_block Parameters(uint64_t disk_mb) {
  ext2_super_block super{};
  const uint64_t bytes = disk_mb * 1024 * 1024;
  super.s_rev_level = EXT2_DYNAMIC_REV;
  super.s_log_block_size = 2;  // 4 KiB, whatever the size: small pages below would cost speed
  super.s_log_cluster_size = 2;
  super.s_inode_size = 256;
  super.s_inodes_count = static_cast<uint32_t>(
      std::min<uint64_t>(bytes / kBytesPerInode, uint64_t{1} << 30));
  super.s_log_groups_per_flex = 4;
  // 64 KiB file systems and up; growing online needs the reserved group descriptors.
  super.s_feature_compat = EXT2_FEATURE_COMPAT_RESIZE_INODE | EXT2_FEATURE_COMPAT_DIR_INDEX |
                           EXT2_FEATURE_COMPAT_EXT_ATTR;
  super.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                             EXT4_FEATURE_INCOMPAT_FLEX_BG;
  super.s_feature_ro_compat =
      EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
      EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
      EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
  ext2fs_blocks_count_set(&super, bytes / kBlockBytes);
  return super;
}

void SetIdentity(ext2_filsys fs) {
  SystemRng rng;
  const std::string uuid = rng.Bytes(sizeof(fs->super->s_uuid));
  memcpy(fs->super->s_uuid, uuid.data(), uuid.size());
  fs->super->s_uuid[6] = (fs->super->s_uuid[6] & 0x0f) | 0x40;  // version 4
  fs->super->s_uuid[8] = (fs->super->s_uuid[8] & 0x3f) | 0x80;
  const std::string seed = rng.Bytes(sizeof(fs->super->s_hash_seed));
  memcpy(fs->super->s_hash_seed, seed.data(), seed.size());
  fs->super->s_def_hash_version = EXT2_HASH_HALF_MD4;
  fs->super->s_flags |= EXT2_FLAGS_SIGNED_HASH;
  fs->super->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
  fs->super->s_max_mnt_count = -1;  // never due for a check
  fs->super->s_min_extra_isize = 32;
  fs->super->s_want_extra_isize = 32;
  fs->super->s_checksum_type = EXT2_CRC32C_CHKSUM;
  ext2fs_init_csum_seed(fs);
}

// The file is one hole, so every inode table reads as zeros already: saying so spares the guest
// its background zeroing.
void MarkInodeTablesZeroed(ext2_filsys fs) {
  for (dgrp_t group = 0; group < fs->group_desc_count; ++group) {
    ext2fs_bg_flags_set(fs, group, EXT2_BG_INODE_ZEROED);
    ext2fs_group_desc_csum_set(fs, group);
  }
}

absl::Status MakeFolders(ext2_filsys fs) {
  RETURN_IF_ERROR(Check(ext2fs_mkdir(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, nullptr), "make /"));
  for (ext2_ino_t inode = EXT2_ROOT_INO + 1; inode < EXT2_FIRST_INODE(fs->super); ++inode) {
    ext2fs_inode_alloc_stats2(fs, inode, +1, 0);
  }
  ext2fs_inode_alloc_stats2(fs, EXT2_BAD_INO, +1, 0);
  RETURN_IF_ERROR(Check(ext2fs_update_bb_inode(fs, nullptr), "make the bad block inode"));
  fs->umask = 077;
  RETURN_IF_ERROR(
      Check(ext2fs_mkdir(fs, EXT2_ROOT_INO, 0, "lost+found"), "make /lost+found"));
  ext2_ino_t lost_and_found = 0;
  RETURN_IF_ERROR(Check(ext2fs_lookup(fs, EXT2_ROOT_INO, "lost+found", 10, nullptr,
                                      &lost_and_found), "find /lost+found"));
  for (int block = 1; block < kLostAndFoundBlocks; ++block) {
    RETURN_IF_ERROR(Check(ext2fs_expand_dir(fs, lost_and_found), "grow /lost+found"));
  }
  return absl::OkStatus();
}

absl::Status WriteFileSystem(const std::string& path, uint64_t disk_mb) {
  RegisterErrorTable();
  ext2_super_block parameters = Parameters(disk_mb);
  FileSystem file_system;
  RETURN_IF_ERROR(Check(ext2fs_initialize(path.c_str(), EXT2_FLAG_EXCLUSIVE, &parameters,
                                          unix_io_manager, file_system.out()),
                        "lay out the disk's file system"));
  ext2_filsys fs = file_system.get();
  fs->flags |= EXT2_FLAG_FLUSH_NO_SYNC;
  SetIdentity(fs);
  RETURN_IF_ERROR(Check(ext2fs_allocate_tables(fs), "place the disk's tables"));
  MarkInodeTablesZeroed(fs);
  RETURN_IF_ERROR(MakeFolders(fs));
  RETURN_IF_ERROR(Check(ext2fs_create_resize_inode(fs), "reserve room to grow"));
  const int journal_blocks = ext2fs_default_journal_size(ext2fs_blocks_count(fs->super));
  RETURN_IF_ERROR(Check(ext2fs_add_journal_inode(fs, static_cast<blk_t>(journal_blocks),
                                                 EXT2_MKJOURNAL_LAZYINIT |
                                                     EXT2_MKJOURNAL_NO_MNT_CHECK),
                        "make the journal"));
  return file_system.Close();
}

}  // namespace

absl::Status MakeRwDisk(const std::string& path, uint64_t disk_mb, uid_t uid) {
  if (disk_mb < kMinRwDiskMb || disk_mb > kMaxRwDiskMb) {
    return absl::InvalidArgumentError(absl::StrCat("disk_mb is ", disk_mb, ", must be ",
                                                   kMinRwDiskMb, " to ", kMaxRwDiskMb));
  }
  const std::string temporary = path + ".new";
  if (unlink(temporary.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, absl::StrCat("remove ", temporary));
  }
  const UniqueFd fd(open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return ErrnoError(errno, absl::StrCat("create ", temporary));
  absl::Status status;
  if (ftruncate(fd.get(), static_cast<off_t>(disk_mb * 1024 * 1024)) != 0) {
    status = ErrnoError(errno, absl::StrCat("set the size of ", temporary));
  }
  if (status.ok()) status = WriteFileSystem(temporary, disk_mb);
  if (status.ok() && (fchmod(fd.get(), 0600) != 0 || fchown(fd.get(), uid, uid) != 0)) {
    status = ErrnoError(errno, absl::StrCat("give ", temporary, " to its user"));
  }
  // link(2), unlike rename(2), never replaces a disk that is there.
  if (status.ok() && link(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoError(errno, absl::StrCat("name ", path));
  }
  unlink(temporary.c_str());
  return Annotate(status, "make the bunker's disk");
}

}  // namespace bunker::agent
