// Pulls images with the product's own ImagePuller, as the agent's configuration says, for tests
// that build the world around it: pull_probe CONFIG BLOBS [TUNING]
//
// Reads one JSON object a line: {"ref" | "tar", "pinned", "arch", "tenant", "scope", "times",
// "after_ms"} and answers each with one line. `times` pulls run at once and their answers come in
// one list, as do those of a list of such objects. TUNING is a JSON object of times, which tests
// shorten.
#include <sys/resource.h>

#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "agent/cache/blob_store.h"
#include "agent/config.h"
#include "agent/pull/image_source.h"
#include "agent/pull_config.h"
#include "common/base/reason.h"
#include "nlohmann/json.hpp"

namespace {
using bunker::agent::BlobStore;
using bunker::agent::ImagePuller;
using bunker::agent::LayerFile;
using bunker::agent::PullConfig;
using bunker::agent::ResolvedImage;
using nlohmann::json;

void Tune(const json& tuning, PullConfig* config) {
  const auto ms = [&](const char* key, absl::Duration* value) {
    if (tuning.contains(key)) *value = absl::Milliseconds(tuning[key].get<int64_t>());
  };
  ms("first_backoff_ms", &config->first_backoff);
  ms("retry_after_cap_ms", &config->retry_after_cap);
  ms("connect_timeout_ms", &config->connect_timeout);
  ms("small_request_timeout_ms", &config->small_request_timeout);
  ms("low_speed_time_ms", &config->low_speed_time);
  config->low_speed_bytes_per_s =
      tuning.value("low_speed_bytes_per_s", config->low_speed_bytes_per_s);
  config->max_tries = tuning.value("max_tries", config->max_tries);
  config->max_archive_bytes = tuning.value("max_archive_bytes", config->max_archive_bytes);
}

json Failed(const absl::Status& status) {
  return {{"ok", false},
          {"reason", bunker::ReasonOf(status)},
          {"message", std::string(status.message())},
          {"retryable", bunker::agent::IsRetryablePullError(status)}};
}

json LayersOf(const std::vector<LayerFile>& files) {
  json layers = json::array();
  for (const LayerFile& file : files) {
    layers.push_back({{"path", file.path},
                      {"digest", file.digest.str()},
                      {"diff_id", file.diff_id.str()},
                      {"size", file.size_bytes},
                      {"compression", bunker::oci::CompressionName(file.compression)}});
  }
  return layers;
}

json PullOnce(ImagePuller& puller, BlobStore& blobs, const json& wanted) {
  bunker::agent::SourceSpec spec;
  spec.oci_ref = wanted.value("ref", "");
  spec.tar_path = wanted.value("tar", "");
  spec.tenant_id = wanted.value("tenant", "");
  spec.scope = wanted.value("scope", "platform");
  bunker::CancelToken cancel;
  absl::SleepFor(absl::Milliseconds(wanted.value("after_ms", 0)));
  const absl::Time began = absl::Now();
  auto source = puller.OpenSource(spec, wanted.value("pinned", ""), wanted.value("arch", "X86_64"));
  if (!source.ok()) return Failed(source.status());
  const auto image = (*source)->Resolve(cancel);
  if (!image.ok()) return Failed(image.status());
  const auto files = (*source)->Fetch(*image, blobs, cancel, nullptr);
  if (!files.ok()) return Failed(files.status());
  return {{"ok", true},
          {"manifest", image->manifest_digest.str()},
          {"index", image->index_digest.str()},
          {"arch", image->config.architecture},
          {"layers", LayersOf(*files)},
          {"ms", absl::ToInt64Milliseconds(absl::Now() - began)}};
}

json PullAll(ImagePuller& puller, BlobStore& blobs, const json& wanted) {
  std::vector<json> each;
  if (wanted.is_array()) {
    each = wanted.get<std::vector<json>>();
  } else {
    each.assign(wanted.value("times", size_t{1}), wanted);
  }
  std::vector<json> answers(each.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < each.size(); ++i)
      threads.emplace_back([&, i] { answers[i] = PullOnce(puller, blobs, each[i]); });
  }
  return each.size() == 1 ? answers.front() : json(answers);
}

int Refuse(const absl::Status& status) {
  std::cout << json({{"fatal", std::string(status.message())}}) << std::endl;
  return 2;
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: pull_probe CONFIG BLOBS [TUNING]\n";
    return 64;
  }
  const auto config = bunker::agent::LoadAgentConfig(argv[1]);
  if (!config.ok()) return Refuse(config.status());
  auto pull = bunker::agent::PullConfigOf(*config);
  if (!pull.ok()) return Refuse(pull.status());
  absl::Duration patience = absl::Seconds(10);
  if (argc > 3) {
    const json tuning = json::parse(argv[3]);
    Tune(tuning, &*pull);
    patience = absl::Milliseconds(tuning.value("patience_ms", int64_t{10'000}));
  }
  auto puller = ImagePuller::Create(*std::move(pull));
  if (!puller.ok()) return Refuse(puller.status());
  auto blobs = BlobStore::Open(argv[2], absl::Hours(24), patience);
  if (!blobs.ok()) return Refuse(blobs.status());
  std::cout << "{}" << std::endl;  // ready
  for (std::string line; std::getline(std::cin, line);) {
    json answer = PullAll(**puller, **blobs, json::parse(line));
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    if (answer.is_object()) answer["peak_rss_kib"] = usage.ru_maxrss;
    std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
