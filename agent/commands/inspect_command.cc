#include "agent/commands/inspect_command.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "agent/bake/bake_types.h"
#include "agent/commands/bake_report.h"
#include "agent/commands/exit_codes.h"
#include "agent/commands/image_file.h"
#include "agent/commands/verity_file.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

struct Inspection {
  ImageFileFacts facts;
  VerityVerdict verity;
  std::string tree_file;  // empty: there was none
};

absl::StatusOr<Inspection> Inspect(const InspectCommandOptions& options) {
  Inspection found;
  ASSIGN_OR_RETURN(const int opened, OpenImageFile(options.file));
  const UniqueFd fd(opened);
  ASSIGN_OR_RETURN(found.facts, ReadImageFile(fd.get()));
  UniqueFd tree_fd;
  const std::string tree = options.tree.empty() ? options.file + ".verity" : options.tree;
  if (!options.tree.empty() || ::access(tree.c_str(), F_OK) == 0) {
    ASSIGN_OR_RETURN(const int opened_tree, OpenImageFile(tree));
    tree_fd.reset(opened_tree);
    found.tree_file = tree;
  }
  ASSIGN_OR_RETURN(found.verity, CheckVerity(fd.get(), found.facts.apparent_bytes, tree_fd.get()));
  return found;
}

// The label is printable once it is known to be ours, but for what follows the prefix.
std::string WriterVersion(const ImageFileFacts& facts) {
  std::string version = facts.label.substr(sizeof kImageLabelPrefix - 1);
  for (char& c : version) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return version;
}

std::string Json(const InspectCommandOptions& options, const Inspection& found) {
  const ImageFileFacts& facts = found.facts;
  nlohmann::ordered_json json = {
      {"file", options.file},
      {"writer_version", WriterVersion(facts)},
      {"uuid", facts.uuid},
      {"rootfs_digest", found.verity.digest},
      {"features", facts.features},
      {"block_bytes", facts.block_bytes},
      {"blocks", facts.blocks},
      {"free_blocks", facts.free_blocks},
      {"inodes", facts.inodes},
      {"free_inodes", facts.free_inodes},
      {"entries", facts.entries},
      {"directories", facts.directories},
      {"regular_files", facts.regular_files},
      {"symlinks", facts.symlinks},
      {"other_files", facts.other_files},
      {"content_bytes", facts.content_bytes},
      {"bytes", {{"apparent", facts.apparent_bytes}, {"allocated", facts.allocated_bytes}}},
      {"holes_bytes", facts.hole_bytes},
      {"data_extents", facts.data_extents}};
  if (!found.tree_file.empty())
    json["tree"] = {{"file", found.tree_file}, {"matches", found.verity.tree_matches}};
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string Text(const InspectCommandOptions& options, const Inspection& found) {
  constexpr double kMib = 1 << 20;
  const ImageFileFacts& facts = found.facts;
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / kMib; };
  std::string text = options.file + "\n";
  absl::StrAppendFormat(&text, "  digest      %s\n", found.verity.digest);
  absl::StrAppendFormat(&text, "  tree        %s\n",
                        found.tree_file.empty()     ? "none beside it"
                        : found.verity.tree_matches ? found.tree_file + ", matches"
                                                    : found.tree_file + ", DOES NOT MATCH");
  absl::StrAppendFormat(&text, "  uuid        %s\n  writer      %s\n  features    %s\n", facts.uuid,
                        WriterVersion(facts), absl::StrJoin(facts.features, " "));
  absl::StrAppendFormat(&text, "  blocks      %d of %d bytes, %d free\n  inodes      %d, %d free\n",
                        facts.blocks, facts.block_bytes, facts.free_blocks, facts.inodes,
                        facts.free_inodes);
  absl::StrAppendFormat(
      &text, "  paths       %d: %d directories, %d files, %d symlinks, %d others\n", facts.entries,
      facts.directories, facts.regular_files, facts.symlinks, facts.other_files);
  absl::StrAppendFormat(&text,
                        "  size        %.1f MiB apparent, %.1f MiB allocated, %.1f MiB of holes, "
                        "%.1f MiB of content\n",
                        mib(facts.apparent_bytes), mib(facts.allocated_bytes),
                        mib(facts.hole_bytes), mib(facts.content_bytes));
  return text;
}

}  // namespace

int RunInspectCommand(const InspectCommandOptions& options) {
  SetLogThreshold(Severity::kWarning);
  const absl::StatusOr<Inspection> found = Inspect(options);
  if (!found.ok()) {
    std::fprintf(stderr, "bunker-agent: %s\n", ErrorText(found.status()).c_str());
    if (options.json) std::fputs(ErrorJson(found.status()).c_str(), stdout);
    return ExitCodeOf(found.status());
  }
  std::fputs((options.json ? Json(options, *found) : Text(options, *found)).c_str(), stdout);
  if (std::fflush(stdout) != 0) return kExitFailed;
  return found->verity.tree_checked && !found->verity.tree_matches ? kExitImage : kExitDone;
}

}  // namespace bunker::agent
