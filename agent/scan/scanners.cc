// The scanners behind scanner.h.
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/confined/confined_command.h"
#include "agent/scan/findings_reader.h"
#include "agent/scan/scanner.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/sbom/cyclonedx.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxAnswerBytes = 64 << 20;

class BuiltinScanner final : public Scanner {
 public:
  explicit BuiltinScanner(ScanOptions options) : options_(std::move(options)) {}

  absl::StatusOr<scan::v1::ScanOutput> Scan(const std::string& rootfs_path,
                                            CancelToken& cancel) override {
    scan::v1::ScanOutput output;
    output.set_scanner(options_.scanner);
    ASSIGN_OR_RETURN(*output.mutable_inventory(), InventoryOf(rootfs_path, options_, cancel));
    return output;
  }

 private:
  const ScanOptions options_;
};

// A folder of the scan's own, which the program's user may write in; gone with the object.
class WorkFolder {
 public:
  static absl::StatusOr<std::unique_ptr<WorkFolder>> Make(const ScanOptions& options) {
    RETURN_IF_ERROR(MakeFolders(options.work_dir, 0711));
    std::string path = options.work_dir + "/scan.XXXXXX";
    if (mkdtemp(path.data()) == nullptr) return ErrnoError(errno, "a folder for the scan");
    std::unique_ptr<WorkFolder> folder(new WorkFolder(path));
    if (chown(path.c_str(), options.uid, options.uid) != 0)
      return ErrnoError(errno, "a folder for the scan");
    return folder;
  }
  ~WorkFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit WorkFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// Debian's releases by name; of a fixed table, for what an image calls itself is not put into argv.
const char* SuiteOf(const scan::v1::Distribution& distribution) {
  constexpr std::pair<const char*, const char*> kSuites[] = {
      {"10", "buster"}, {"11", "bullseye"}, {"12", "bookworm"}, {"13", "trixie"}, {"14", "forky"}};
  if (distribution.id() != "debian") return nullptr;
  for (const auto& [version, suite] : kSuites) {
    if (distribution.version_id() == version) return suite;
  }
  return nullptr;
}

// What dpkg would say of the inventory.
std::string StatusFileOf(const scan::v1::Inventory& inventory) {
  std::string text;
  for (const scan::v1::Package& package : inventory.packages()) {
    if (package.kind() != scan::v1::Package::DEB) continue;
    absl::StrAppend(&text, "Package: ", package.name(), "\nStatus: install ok installed\n");
    if (!package.arch().empty()) absl::StrAppend(&text, "Architecture: ", package.arch(), "\n");
    if (!package.source_name().empty()) {
      absl::StrAppend(&text, "Source: ", package.source_name());
      if (!package.source_version().empty())
        absl::StrAppend(&text, " (", package.source_version(), ")");
      text += "\n";
    }
    absl::StrAppend(&text, "Version: ", package.version(), "\n\n");
  }
  return text;
}

class CommandScanner final : public Scanner {
 public:
  explicit CommandScanner(ScanOptions options) : options_(std::move(options)) {}

  absl::StatusOr<scan::v1::ScanOutput> Scan(const std::string& rootfs_path,
                                            CancelToken& cancel) override {
    scan::v1::ScanOutput output;
    output.set_scanner(options_.scanner);
    ASSIGN_OR_RETURN(*output.mutable_inventory(), InventoryOf(rootfs_path, options_, cancel));
    ASSIGN_OR_RETURN(const auto folder, WorkFolder::Make(options_));
    ASSIGN_OR_RETURN(const std::string answer,
                     RunProgram(output.inventory(), folder->path(), cancel));
    ASSIGN_OR_RETURN(const auto findings, Read(answer, output.inventory()));
    output.set_decided(true);
    for (const scan::v1::Finding& finding : findings) *output.add_findings() = finding;
    return output;
  }

 private:
  absl::StatusOr<std::string> RunProgram(const scan::v1::Inventory& inventory,
                                         const std::string& folder, CancelToken& cancel) {
    ConfinedCommand command;
    ASSIGN_OR_RETURN(command.argv, Prepare(inventory, folder));
    command.env = {{"PATH", "/usr/local/bin:/usr/bin:/bin"},
                   {"HOME", folder},
                   {"TMPDIR", folder},
                   {"LC_ALL", "C.UTF-8"}};
    if (!options_.cache_dir.empty()) {
      command.env.emplace_back("TRIVY_CACHE_DIR", options_.cache_dir);
      command.env.emplace_back("GRYPE_DB_CACHE_DIR", options_.cache_dir);
    }
    command.writable_dir = folder;
    command.uid = options_.uid;
    command.memory_bytes = options_.memory_bytes;
    command.cpu_seconds = options_.cpu_seconds;
    command.network = options_.network;
    command.timeout = options_.deadline;
    command.max_output_bytes = kMaxAnswerBytes;
    auto result = RunConfined(command, cancel);
    if (!result.ok()) return Annotate(result.status(), options_.scanner);
    if (!result->ok()) {
      return absl::UnavailableError(absl::StrCat(options_.scanner, ": ", DescribeExit(result->exit),
                                                 ": ", result->stderr_data.substr(0, 300)));
    }
    if (result->truncated)
      return absl::ResourceExhaustedError(options_.scanner + " prints more than is taken in");
    return std::move(result->stdout_data);
  }

  // Writes the program's input and gives its argv: fixed words, and paths of our own.
  absl::StatusOr<std::vector<std::string>> Prepare(const scan::v1::Inventory& inventory,
                                                   const std::string& folder) {
    if (options_.scanner == "debsecan") {
      const char* suite = SuiteOf(inventory.distribution());
      if (suite == nullptr) {
        return absl::FailedPreconditionError(
            "debsecan knows Debian alone: use another scanner for images of other distributions");
      }
      const std::string status = folder + "/status";
      RETURN_IF_ERROR(WriteFileDurably(status, StatusFileOf(inventory), 0644));
      return std::vector<std::string>{options_.command, "--suite",       suite,
                                      "--source",       options_.source, "--status",
                                      status,           "--format",      "summary"};
    }
    const std::string sbom = folder + "/sbom.json";
    const SbomSubject subject{"image", "", absl::Now()};
    RETURN_IF_ERROR(WriteFileDurably(sbom, CycloneDxOf(subject, inventory), 0644));
    if (options_.scanner == "grype")
      return std::vector<std::string>{options_.command, "sbom:" + sbom, "-o", "json", "-q"};
    std::vector<std::string> argv = {options_.command, "sbom", "--quiet", "--format", "json"};
    if (!options_.network) argv.insert(argv.end(), {"--offline-scan", "--skip-db-update"});
    argv.push_back(sbom);
    return argv;
  }

  absl::StatusOr<std::vector<scan::v1::Finding>> Read(const std::string& answer,
                                                      const scan::v1::Inventory& inventory) {
    if (options_.scanner == "trivy") return ReadTrivy(answer);
    if (options_.scanner == "grype") return ReadGrype(answer);
    return ReadDebsecan(answer, inventory);
  }

  const ScanOptions options_;
};

class NoScanner final : public Scanner {
 public:
  absl::StatusOr<scan::v1::ScanOutput> Scan(const std::string&, CancelToken&) override {
    return absl::FailedPreconditionError(
        "the worker has no scanner: its operator can set scan.scanner in agent.toml");
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Scanner>> MakeScanner(const ScanOptions& options) {
  if (options.uid == 0) return absl::InvalidArgumentError("scan.uid must not be root");
  if (options.scanner == "none") return std::make_unique<NoScanner>();
  if (options.scanner == "builtin") return std::make_unique<BuiltinScanner>(options);
  if (options.scanner != "trivy" && options.scanner != "grype" && options.scanner != "debsecan") {
    return absl::InvalidArgumentError(
        "scan.scanner must be builtin, trivy, grype, debsecan or none");
  }
  if (options.command.empty() || options.command[0] != '/') {
    return absl::InvalidArgumentError(
        "scan.command must be the absolute path of the scanner's program");
  }
  if (options.scanner == "debsecan" && options.source.empty()) {
    return absl::InvalidArgumentError(
        "scan.source must be the URL of debsecan's data: file:///… or https://…");
  }
  return std::make_unique<CommandScanner>(options);
}

}  // namespace bunker::agent
