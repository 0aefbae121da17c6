// Reading the operator's folder of advisories.
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/scan/advisories.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxFileBytes = 8 << 20;
constexpr uint64_t kMaxFolderBytes = uint64_t{8} << 30;
constexpr size_t kMaxFiles = 2'000'000;
constexpr size_t kMaxProblemsNamed = 3;

absl::Status Unreadable(const std::string& folder, const std::string& why) {
  return absl::UnavailableError(
      absl::StrCat("the advisories in ", folder, " can't be read: ", why));
}

// Sorted, so that equal folders read the same.
absl::StatusOr<std::vector<std::string>> FilesOf(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<std::string> files;
  fs::recursive_directory_iterator it(folder, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (it->path().extension() != ".json" || name[0] == '.') continue;
    std::error_code not_a_file;
    if (!it->is_regular_file(not_a_file)) continue;
    files.push_back(it->path().string());
    if (files.size() > kMaxFiles) return Unreadable(folder, "there are too many files");
  }
  if (error) return Unreadable(folder, error.message());
  std::sort(files.begin(), files.end());
  return files;
}

void AddProblem(const std::string& file, const absl::Status& status, size_t* count,
                std::string* text) {
  if (++*count > kMaxProblemsNamed) return;
  absl::StrAppend(text, text->empty() ? "" : ", ", std::filesystem::path(file).filename().string(),
                  " (", status.message(), ")");
}

}  // namespace

absl::StatusOr<std::string> FolderStamp(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(folder));
  Sha256 hash;
  for (const std::string& file : files) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) continue;
    hash.Update(absl::StrCat(file, "\n", status.st_ino, " ", status.st_size, " ",
                             status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec, "\n"));
  }
  return hash.Finish();
}

absl::StatusOr<std::shared_ptr<const AdvisorySet>> LoadAdvisories(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(folder));
  auto set = std::make_shared<AdvisorySet>();
  std::vector<std::string> digests;
  uint64_t bytes = 0;
  size_t problems = 0;
  std::string named;
  for (const std::string& file : files) {
    const auto text = ReadFile(file, kMaxFileBytes);
    if (!text.ok()) {
      AddProblem(file, text.status(), &problems, &named);
      digests.push_back(Sha256Hex(file));
      continue;
    }
    bytes += text->size();
    if (bytes > kMaxFolderBytes) return Unreadable(folder, "it holds too many bytes");
    digests.push_back(Sha256Hex(*text));
    if (const absl::Status added = set->Add(*text); !added.ok())
      AddProblem(file, added, &problems, &named);
  }
  if (problems > 0) {
    set->problem =
        absl::StrCat(problems, " of the ", files.size(), " advisory files can't be read: ", named,
                     problems > kMaxProblemsNamed ? ", …" : "");
  }
  // Where a record lies makes no difference.
  std::sort(digests.begin(), digests.end());
  Sha256 hash;
  for (const std::string& digest : digests) hash.Update(digest);
  std::string raw = hash.Finish();
  set->digest = Sha256Hex(raw);
  return std::shared_ptr<const AdvisorySet>(std::move(set));
}

}  // namespace bunker::controller
