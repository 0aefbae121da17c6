#include <utility>

#include "absl/time/time.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kTimeout = absl::Seconds(30);

std::string ImagePath(const std::string& image) {
  return "/images/" + Segment(image);
}

std::string SourceOf(const Json& image) {
  const std::string ref = TextAt(image, "build_source.ref");
  return ref.empty() ? TextAt(image, "build_source.path") : ref;
}

// "host/a/b:tag@digest" → "host/a/b", "tag".
std::pair<std::string, std::string> SplitRef(const std::string& ref) {
  const std::string front = ref.substr(0, ref.find('@'));
  const size_t colon = front.rfind(':');
  const size_t slash = front.rfind('/');
  const bool tagged = colon != std::string::npos && (slash == std::string::npos || colon > slash);
  if (!tagged) return {front, ref.find('@') != std::string::npos || slash == 0 ? "" : "latest"};
  return {front.substr(0, colon), front.substr(colon + 1)};
}

// "2 ready, 1 building" out of cache_summary.
std::string SummaryOf(const Json& image) {
  std::string text;
  for (const char* status : {"ready", "building", "pending", "failed", "evicted"}) {
    const auto count = UnsignedAt(image, std::string("cache_summary.") + status).value_or(0);
    if (count == 0) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + status;
  }
  return text;
}

std::string WarmText(const Json& warm) {
  return "fan-out: " + TextAt(warm, "queued") + " queued, " + TextAt(warm, "ready") + " ready, " +
         TextAt(warm, "failed") + " failed, " + TextAt(warm, "skipped") + " skipped\n";
}

Json RegisterBody(const RegisterImageOptions& options) {
  Json body = {{"name", options.name}, {"size_mib", options.size_mib}};
  if (options.ref.empty()) {
    body["build_source"] = {{"kind", "tar"}, {"path", options.tar_path}};
  } else {
    body["build_source"] = {{"kind", "oci"}, {"ref", options.ref}};
  }
  if (!options.display_name.empty()) body["display_name"] = options.display_name;
  if (!options.description.empty()) body["description"] = options.description;
  if (!options.scope.empty()) body["scope"] = options.scope;
  if (!options.arch.empty()) body["arch"] = options.arch;
  if (options.lazy_pull) body["lazy_pull"] = true;
  if (options.cpu_millicores) body["default_cpu_millicores"] = *options.cpu_millicores;
  if (options.memory_mb) body["default_memory_mb"] = *options.memory_mb;
  if (options.disk_mb) body["default_disk_mb"] = *options.disk_mb;
  if (!options.preinstalled.empty()) body["preinstalled"] = options.preinstalled;
  return body;
}

std::string Details(const Json& image) {
  std::string out;
  const auto line = [&](const char* label, const std::string& value) {
    const std::string name(label);
    out += name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ') +
           (value.empty() ? "-" : Printable(value)) + "\n";
  };
  line("id", TextAt(image, "id"));
  line("name", TextAt(image, "name"));
  line("display name", TextAt(image, "display_name"));
  line("source", SourceOf(image));
  line("resolved", TextAt(image, "resolved_digest"));
  line("rootfs", TextAt(image, "rootfs_digest"));
  line("size cap", TextAt(image, "size_mib") + " MiB");
  line("size", image.contains("size_in_bytes") && UnsignedAt(image, "size_in_bytes")
                   ? FormatBytes(*UnsignedAt(image, "size_in_bytes"))
                   : "");
  line("defaults", TextAt(image, "default_cpu_millicores") + " millicores, " +
                       TextAt(image, "default_memory_mb") + " MiB memory, " +
                       TextAt(image, "default_disk_mb") + " MiB disk");
  line("scope", TextAt(image, "scope"));
  line("active", TextAt(image, "active"));
  line("lazy pull", TextAt(image, "lazy_pull"));
  line("scan", TextAt(image, "scan_status"));
  line("workers", SummaryOf(image));
  line("created", TextAt(image, "created_at"));
  return out;
}

}  // namespace

int RegisterImage(Session& session, const RegisterImageOptions& options) {
  auto image = session.api().Call("POST", "/images", RegisterBody(options), kTimeout);
  if (!image.ok()) return session.Fail(image.status());
  const std::string id = TextAt(*image, "id");
  if (!options.group.empty()) {
    auto attached =
        session.api().Call("POST", "/availability-groups/" + Segment(options.group) + "/images",
                           {{"ref", id}}, kTimeout);
    if (!attached.ok()) return session.Fail(attached.status());
  }
  if (session.json() && !options.watch) {
    session.PrintJson(*image);
  } else if (!session.json()) {
    session.Print("registered " + TextAt(*image, "name") + " as " + id + "\n");
    if (options.group.empty()) session.Print(WarmText((*image)["warm"]));
  }
  return options.watch ? WatchImage(session, WatchOptions{id}) : kExitOk;
}

int ListImages(Session& session, bool wide) {
  auto images = session.api().List("/images");
  if (!images.ok()) return session.Fail(images.status());
  if (session.json()) {
    session.PrintJson(*images);
    return kExitOk;
  }
  std::vector<std::string> headings = {"IMAGE", "TAG", "SIZE", "NAME", "ACTIVE", "WORKERS"};
  for (const char* more : {"SCAN", "SCOPE", "ID"}) {
    if (wide) headings.emplace_back(more);
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& image : *images) {
    const auto size = UnsignedAt(image, "size_in_bytes");
    const auto [repository, tag] = SplitRef(SourceOf(image));
    rows.push_back({repository, tag, size ? FormatBytes(*size) : "", TextAt(image, "name"),
                    TrueAt(image, "active") ? "yes" : "no", SummaryOf(image),
                    TextAt(image, "scan_status"), TextAt(image, "scope"), TextAt(image, "id")});
  }
  session.Print(FormatTable(headings, rows));
  return kExitOk;
}

int ShowImage(Session& session, const std::string& image) {
  auto row = session.api().Get(ImagePath(image));
  if (!row.ok()) return session.Fail(row.status());
  auto cache = session.api().List(ImagePath(image) + "/cache");
  if (!cache.ok()) return session.Fail(cache.status());
  if (session.json()) {
    (*row)["cache"] = *cache;
    session.PrintJson(*row);
    return kExitOk;
  }
  session.Print(Details(*row));
  if (cache->empty()) return kExitOk;
  std::vector<std::vector<std::string>> rows;
  for (const Json& entry : *cache) {
    std::string error = TextAt(entry, "error.code");
    if (!error.empty()) error += ": " + TextAt(entry, "error.message");
    rows.push_back({TextAt(entry, "worker_name"), TextAt(entry, "status"), TextAt(entry, "stage"),
                    TextAt(entry, "source"), TextAt(entry, "rootfs_digest"), error});
  }
  session.Print("\n" +
                FormatTable({"WORKER", "STATUS", "STAGE", "SOURCE", "ROOTFS", "ERROR"}, rows));
  return kExitOk;
}

int WarmImage(Session& session, const std::string& image) {
  auto warm = session.api().Call("POST", ImagePath(image) + "/warm", nullptr, kTimeout);
  if (!warm.ok()) return session.Fail(warm.status());
  if (session.json()) {
    session.PrintJson(*warm);
  } else {
    session.Print(WarmText(*warm));
  }
  return kExitOk;
}

int DeactivateImage(Session& session, const std::string& image) {
  auto row = session.api().Call("DELETE", ImagePath(image), nullptr, kTimeout);
  if (!row.ok()) return session.Fail(row.status());
  if (session.json()) {
    session.PrintJson(*row);
  } else {
    session.Print("deactivated " + image + ": running bunkers go on, new ones are refused\n");
  }
  return kExitOk;
}

}  // namespace bunker::ctl
