#include "agent/commands/bake_report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "agent/commands/exit_codes.h"
#include "common/base/converters.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

using nlohmann::ordered_json;

// What layers hold need not be UTF-8.
std::string Dump(const ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

const char* NameOf(oci::Compression compression) {
  switch (compression) {
    case oci::Compression::kNone:
      return "none";
    case oci::Compression::kGzip:
      return "gzip";
    case oci::Compression::kZstd:
      return "zstd";
  }
  return "none";
}

ordered_json LayersJson(const BakeReport& report) {
  ordered_json layers = ordered_json::array();
  for (size_t i = 0; i < report.image.layers.size(); ++i) {
    const ResolvedLayer& layer = report.image.layers[i];
    layers.push_back({{"digest", layer.digest.str()},
                      {"compression", NameOf(layer.compression)},
                      {"bytes", layer.size_bytes},
                      {"diff_id", report.summary.diff_ids.at(i)}});
  }
  return layers;
}

std::string CodeOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (!reason.empty()) return reason;
  return absl::IsInvalidArgument(status) ? "VALIDATION_ERROR" : "INTERNAL";
}

}  // namespace

std::string ReportJson(const BakeReport& report) {
  const BakeSummary& summary = report.summary;
  ordered_json steps = ordered_json::object();
  for (const StepTime& step : report.steps) {
    steps[step.name] = {{"wall_seconds", step.wall_seconds}, {"cpu_seconds", step.cpu_seconds}};
  }
  ordered_json stages = ordered_json::object();
  for (const BakeStage& stage : summary.stages) stages[stage.name] = stage.cpu_seconds;
  ordered_json json = {
      {"source", report.source},
      {"file", report.file},
      {"arch", report.arch},
      {"manifest_digest", report.image.manifest_digest.str()},
      {"recipe_digest", summary.recipe_digest},
      {"rootfs_digest", summary.rootfs_digest},
      {"diff_ids", summary.diff_ids},
      {"layers", LayersJson(report)},
      {"entries", summary.entries},
      {"bytes_in", summary.compressed_bytes},
      {"bytes_unpacked", summary.uncompressed_bytes},
      {"bytes_out", {{"apparent", summary.apparent_bytes}, {"allocated", summary.allocated_bytes}}},
      {"dropped_xattr_count", summary.dropped_xattr_count},
      {"dropped_xattrs", summary.dropped_xattrs},
      {"reread_layers", summary.reread_layers},
      {"wall_seconds", report.wall_seconds},
      {"cpu_seconds", report.cpu_seconds},
      {"steps", steps},
      {"bake",
       {{"wall_seconds", summary.wall_seconds},
        {"cpu_seconds", summary.cpu_seconds},
        {"stage_cpu_seconds", stages},
        {"peak_rss_bytes", summary.peak_rss_bytes}}},
      {"peak_rss_bytes", std::max(report.peak_rss_bytes, summary.peak_rss_bytes)}};
  if (!report.tree_file.empty()) json["tree_file"] = report.tree_file;
  return Dump(json, 2);
}

std::string ReportText(const BakeReport& report) {
  constexpr double kMib = 1 << 20;
  const BakeSummary& summary = report.summary;
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / kMib; };
  std::string text = absl::StrFormat(
      "%s\n  %d layers, %.1f MiB compressed, %.1f MiB unpacked\n"
      "  %d paths, %.1f MiB on disk, %.1f MiB apparent\n  %s\n",
      report.file, report.image.layers.size(), mib(summary.compressed_bytes),
      mib(summary.uncompressed_bytes), summary.entries, mib(summary.allocated_bytes),
      mib(summary.apparent_bytes), summary.rootfs_digest);
  absl::StrAppendFormat(&text, "  %.2f s, %.2f CPU-seconds, peak %.0f MiB:", report.wall_seconds,
                        report.cpu_seconds, mib(summary.peak_rss_bytes));
  for (const BakeStage& stage : summary.stages) {
    absl::StrAppendFormat(&text, " %s %.2f", stage.name, stage.cpu_seconds);
  }
  text += "\n";
  if (summary.dropped_xattr_count > 0) {
    absl::StrAppendFormat(&text, "  %d extended attributes were left out (--json lists them)\n",
                          summary.dropped_xattr_count);
  }
  return text;
}

std::string ErrorJson(const absl::Status& status) {
  return Dump({{"error", {{"code", CodeOf(status)}, {"message", ToStd(status.message())}}}}, 2);
}

std::string ErrorText(const absl::Status& status) {
  return CodeOf(status) + ": " + std::string(status.message());
}

int ExitCodeOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == "CANCELLED") return kExitCancelled;
  for (const char* image : {"LAYER_UNSUPPORTED", "LAYER_CORRUPT", "DIGEST_MISMATCH",
                            "SIZE_CAP_EXCEEDED", "ARCH_UNAVAILABLE"}) {
    if (reason == image) return kExitImage;
  }
  for (const char* source : {"IMAGE_NOT_FOUND", "REGISTRY_AUTH_FAILED", "REGISTRY_RATE_LIMITED",
                             "REGISTRY_UNREACHABLE", "SOURCE_NOT_READABLE"}) {
    if (reason == source) return kExitSource;
  }
  return reason.empty() && absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed;
}

}  // namespace bunker::agent
