#include "agent/scan/inventory.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/scan/ext4_reader.h"
#include "agent/scan/package_list.h"
#include "agent/scan/rpm_database.h"
#include "agent/scan/scan_limits.h"
#include "agent/scan/text_databases.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxSmallFileBytes = 64 << 10;
constexpr size_t kMaxFolderEntries = 1'000'000;

bool EndsWith(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

class Reader {
 public:
  explicit Reader(const Ext4Reader& files) : files_(files) {}

  scan::v1::Inventory Run() {
    scan::v1::Inventory inventory;
    *inventory.mutable_distribution() = Distribution();
    Dpkg();
    Apk();
    Rpm();
    Walk();
    if (!list_.saw_database() && found_ == 0)
      list_.AddProblem("the image holds no package data of a kind that the scanner reads");
    list_.MoveTo(&inventory);
    return inventory;
  }

 private:
  scan::v1::Distribution Distribution() {
    for (const char* path : {"etc/os-release", "usr/lib/os-release"}) {
      const auto text = ReadAt(path, kMaxSmallFileBytes);
      if (text.ok()) return ReadOsRelease(*text);
    }
    return {};
  }

  absl::StatusOr<std::string> ReadAt(const std::string& path, size_t max_bytes) {
    ASSIGN_OR_RETURN(const uint32_t inode, files_.Find(path));
    return files_.Read(inode, max_bytes);
  }

  // The content; "" where there is no such file. What is there and can't be read is a problem.
  std::string Database(const std::string& path, size_t max_bytes) {
    auto content = ReadAt(path, max_bytes);
    if (content.ok()) {
      list_.SawDatabase();
      return *std::move(content);
    }
    if (!absl::IsNotFound(content.status())) Problem(path, content.status());
    return "";
  }

  void Problem(const std::string& path, const absl::Status& status) {
    list_.AddProblem(path + ": " + std::string(status.message()));
  }

  std::vector<Ext4Reader::Entry> Folder(const std::string& path) {
    const auto inode = files_.Find(path);
    if (!inode.ok()) return {};
    auto entries = files_.List(*inode, kMaxFolderEntries);
    if (entries.ok()) return *std::move(entries);
    if (!absl::IsNotFound(entries.status())) Problem(path, entries.status());
    return {};
  }

  void Dpkg() {
    ReadDpkgStatus(Database("var/lib/dpkg/status", kMaxDatabaseBytes), false, &list_);
    for (const Ext4Reader::Entry& entry : Folder("var/lib/dpkg/status.d")) {
      if (entry.type != Ext4Reader::Type::kFile) continue;
      if (EndsWith(entry.name, ".md5sums")) {
        ReadSums("var/lib/dpkg/status.d/" + entry.name, entry.inode);
        continue;
      }
      list_.SawDatabase();
      const auto text = files_.Read(entry.inode, kMaxMetadataBytes);
      if (!text.ok()) {
        Problem("var/lib/dpkg/status.d/" + entry.name, text.status());
      } else {
        ReadDpkgStatus(*text, true, &list_);
      }
    }
    for (const Ext4Reader::Entry& entry : Folder("var/lib/dpkg/info")) {
      if (entry.type != Ext4Reader::Type::kFile || !EndsWith(entry.name, ".list")) continue;
      const auto text = files_.Read(entry.inode, kMaxDatabaseBytes);
      // Without it, metadata of Debian's own Python packages would be told of twice.
      if (text.ok()) ReadDpkgPaths(*text, &list_);
    }
  }

  // "<md5>  usr/lib/…": what distroless images have in place of dpkg's lists.
  void ReadSums(const std::string& path, uint32_t inode) {
    const auto text = files_.Read(inode, kMaxDatabaseBytes);
    if (!text.ok()) return Problem(path, text.status());
    size_t at = 0;
    while (at < text->size()) {
      const size_t end = std::min(text->find('\n', at), text->size());
      const size_t space = text->find("  ", at);
      if (space != std::string::npos && space < end)
        list_.Own(std::string_view(*text).substr(space + 2, end - space - 2));
      at = end + 1;
    }
  }

  void Apk() {
    for (const char* path : {"lib/apk/db/installed", "usr/lib/apk/db/installed"}) {
      const std::string text = Database(path, kMaxDatabaseBytes);
      ReadApkInstalled(text, &list_);
      if (!text.empty()) return;  // the one may be a link to the other
    }
  }

  void Rpm() {
    for (const std::string folder : {"var/lib/rpm", "usr/lib/sysimage/rpm"}) {
      const std::string path = folder + "/rpmdb.sqlite";
      std::string content = Database(path, kMaxRpmDatabaseBytes);
      if (content.empty()) {
        for (const char* old : {"/Packages", "/Packages.db"}) {
          if (files_.Find(folder + old).ok())
            list_.AddProblem(folder + old + " is an RPM database of a form that is not read");
        }
        continue;
      }
      if (const auto log = ReadAt(path + "-wal", kMaxRpmDatabaseBytes); log.ok() && !log->empty())
        list_.AddProblem(path +
                         "-wal holds changes that are not in the database: end the image's "
                         "build after RPM has closed it");
      const absl::Status status = ReadRpmDatabase(std::move(content), &list_);
      if (!status.ok()) Problem(path, status);
      return;
    }
  }

  struct Place {
    std::string path;  // without the leading slash
    uint32_t inode;
    int depth;
  };

  // Everything, once, without following links.
  void Walk() {
    uint64_t walked = 0;
    std::vector<Place> todo = {{"", Ext4Reader::root(), 0}};
    while (!todo.empty()) {
      const Place place = std::move(todo.back());
      todo.pop_back();
      const auto entries = files_.List(place.inode, kMaxFolderEntries);
      if (!entries.ok()) {
        Problem("/" + place.path, entries.status());
        continue;
      }
      for (const Ext4Reader::Entry& entry : *entries) {
        if (++walked > kMaxPathsWalked) {
          list_.AddProblem("the image holds more than " + std::to_string(kMaxPathsWalked) +
                           " paths");
          return;
        }
        const std::string path = place.path.empty() ? entry.name : place.path + "/" + entry.name;
        Look(path, entry);
        if (entry.type != Ext4Reader::Type::kFolder) continue;
        if (place.depth >= kMaxDepth) {
          list_.AddProblem("folders are nested deeper than " + std::to_string(kMaxDepth));
          return;
        }
        todo.push_back({path, entry.inode, place.depth + 1});
      }
    }
  }

  // Metadata is recognised by its path, within which it is read at once.
  void Look(const std::string& path, const Ext4Reader::Entry& entry) {
    if (entry.type != Ext4Reader::Type::kFile || !IsMetadataPath(path)) return;
    if (list_.Owns(path)) return;
    if (EndsWith(path, "/package.json")) {
      if (!IsInstalledNpm(path)) return;
      const auto text = files_.Read(entry.inode, kMaxMetadataBytes);
      if (!text.ok()) return Problem("/" + path, text.status());
      ReadNpmPackage(*text, "/" + path, &list_);
    } else {
      // The description that follows the fields may be long.
      const auto text = files_.Read(entry.inode, kMaxSmallFileBytes, /*whole=*/false);
      if (!text.ok()) return Problem("/" + path, text.status());
      ReadPythonMetadata(*text, "/" + path, &list_);
    }
    ++found_;
  }

  // …/node_modules/NAME/package.json or …/node_modules/@SCOPE/NAME/package.json.
  static bool IsInstalledNpm(const std::string& path) {
    std::vector<std::string_view> parts;
    std::string_view rest = path;
    while (true) {
      const size_t slash = rest.find('/');
      parts.push_back(rest.substr(0, slash));
      if (slash == rest.npos) break;
      rest.remove_prefix(slash + 1);
    }
    const size_t count = parts.size();
    if (count >= 3 && parts[count - 3] == "node_modules") return parts[count - 2][0] != '@';
    return count >= 4 && parts[count - 4] == "node_modules" && parts[count - 3][0] == '@';
  }

  const Ext4Reader& files_;
  PackageList list_;
  size_t found_ = 0;
};

}  // namespace

absl::StatusOr<scan::v1::Inventory> TakeInventory(int fd) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Ext4Reader> files, Ext4Reader::Open(fd));
  return Reader(*files).Run();
}

}  // namespace bunker::agent
