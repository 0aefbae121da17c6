// Bakes a tag of an OCI layout, or a plain tarball, with the agent's own code path, and prints the
// summary as JSON.
//
//   bake_tool layout DIR TAG OUT SIZE_MIB [TREE]
//   bake_tool tar|tar+gzip|tar+zstd FILE OUT SIZE_MIB [TREE]
//   bake_tool members FILE    (the members of a tar stream as the bake reads them, one a line)
//
// On an error it prints the reason and the message, and exits 1.
#include <fcntl.h>

#include <atomic>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/bake/bake_supervisor.h"
#include "agent/bake/layer_stream.h"
#include "agent/bake/tar_reader.h"
#include "common/base/files.h"
#include "common/base/hex.h"
#include "common/base/reason.h"
#include "common/base/unique_fd.h"

namespace {

using bunker::agent::BakeOptions;
using bunker::agent::BakeSummary;
using bunker::agent::Compression;
using bunker::agent::LayerInput;
using nlohmann::json;

json ReadJson(const std::string& path) {
  const auto text = bunker::ReadFile(path, 16 << 20);
  if (!text.ok()) {
    std::cerr << text.status().message() << "\n";
    std::exit(2);
  }
  return json::parse(*text);
}

std::string BlobPath(const std::string& layout, const std::string& digest) {
  return layout + "/blobs/sha256/" + digest.substr(std::strlen("sha256:"));
}

std::vector<LayerInput> LayersOf(const std::string& layout, const std::string& tag) {
  const json index = ReadJson(layout + "/index.json");
  std::vector<LayerInput> layers;
  for (const json& entry : index["manifests"]) {
    if (entry.value("/annotations/org.opencontainers.image.ref.name"_json_pointer, std::string()) !=
        tag) {
      continue;
    }
    const json manifest = ReadJson(BlobPath(layout, entry["digest"]));
    const json config = ReadJson(BlobPath(layout, manifest["config"]["digest"]));
    for (size_t i = 0; i < manifest["layers"].size(); ++i) {
      const json& layer = manifest["layers"][i];
      const std::string type = layer["mediaType"];
      const auto ends = [&](const char* tail) {
        return type.size() >= std::strlen(tail) &&
               type.compare(type.size() - std::strlen(tail), std::string::npos, tail) == 0;
      };
      layers.push_back(LayerInput{BlobPath(layout, layer["digest"]),
                                  ends("gzip")   ? Compression::kGzip
                                  : ends("zstd") ? Compression::kZstd
                                                 : Compression::kNone,
                                  layer["digest"], config["rootfs"]["diff_ids"][i], layer["size"]});
    }
  }
  return layers;
}

json ToJson(const BakeSummary& summary) {
  json stages = json::object();
  for (const auto& stage : summary.stages) stages[stage.name] = stage.cpu_seconds;
  return {{"recipe_digest", summary.recipe_digest},
          {"rootfs_digest", summary.rootfs_digest},
          {"diff_ids", summary.diff_ids},
          {"apparent_bytes", summary.apparent_bytes},
          {"allocated_bytes", summary.allocated_bytes},
          {"entries", summary.entries},
          {"dropped_xattr_count", summary.dropped_xattr_count},
          {"dropped_xattrs", summary.dropped_xattrs},
          {"compressed_bytes", summary.compressed_bytes},
          {"uncompressed_bytes", summary.uncompressed_bytes},
          {"reread_layers", summary.reread_layers},
          {"stages", stages},
          {"wall_seconds", summary.wall_seconds},
          {"cpu_seconds", summary.cpu_seconds},
          {"peak_rss_bytes", summary.peak_rss_bytes}};
}

int PrintError(const absl::Status& status) {
  std::cout << bunker::ReasonOf(status) << ": " << status.message() << "\n";
  return 1;
}

int PrintMembers(const std::string& path) {
  setlocale(LC_ALL, "C.UTF-8");
  bunker::agent::FdLayerSource source(bunker::UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC)));
  std::atomic<uint64_t> consumed{0};
  bunker::agent::LayerStream stream(LayerInput(), bunker::agent::BakeLimits(), &source, &consumed);
  bunker::agent::TarReader reader(&stream);
  bunker::agent::TarMember member;
  for (;;) {
    const auto more = reader.Next(&member);
    if (!more.ok()) return PrintError(more.status());
    if (!*more) return 0;
    std::cout << json{{"name", bunker::HexEncode(member.name)},
                      {"link", bunker::HexEncode(member.link)},
                      {"type", static_cast<int>(member.type)},
                      {"size", member.size},
                      {"mode", member.metadata.mode},
                      {"uid", member.metadata.uid},
                      {"gid", member.metadata.gid},
                      {"mtime", member.metadata.mtime_seconds}}
                     .dump()
              << "\n";
  }
}

int Run(const BakeOptions& options) {
  bunker::CancelToken cancel;
  const auto summary = bunker::agent::Bake(options, cancel, [](const auto& progress) {
    std::fprintf(stderr, "%llu of %llu bytes\n",
                 static_cast<unsigned long long>(progress.bytes_done),
                 static_cast<unsigned long long>(progress.bytes_total));
  });
  if (!summary.ok()) return PrintError(summary.status());
  std::cout << ToJson(*summary).dump(1) << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == bunker::agent::kBakeChildArgument) return bunker::agent::BakeChildMain();
  if (mode == "members" && argc == 3) return PrintMembers(argv[2]);
  BakeOptions options;
  int rest = 0;
  if (mode == "layout" && argc >= 6) {
    options.layers = LayersOf(argv[2], argv[3]);
    rest = 4;
  } else if (mode.rfind("tar", 0) == 0 && argc >= 5) {
    const Compression compression = mode == "tar+gzip"   ? Compression::kGzip
                                    : mode == "tar+zstd" ? Compression::kZstd
                                                         : Compression::kNone;
    options.layers = {LayerInput{argv[2], compression, "", "", 0}};
    rest = 3;
  } else {
    std::cerr << "usage: bake_tool layout DIR TAG OUT SIZE_MIB [TREE]\n"
                 "       bake_tool tar|tar+gzip|tar+zstd FILE OUT SIZE_MIB [TREE]\n"
                 "       bake_tool members FILE\n";
    return 2;
  }
  options.out_path = argv[rest];
  options.size_mib = static_cast<uint32_t>(std::atoi(argv[rest + 1]));
  if (argc > rest + 2) options.tree_path = argv[rest + 2];
  return Run(options);
}
