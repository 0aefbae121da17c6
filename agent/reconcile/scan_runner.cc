#include "agent/reconcile/scan_runner.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/compress/zstd.h"

namespace bunker::agent {
namespace {

// One row of the link alone must fit a frame.
constexpr size_t kMaxOutputBytes = 2 << 20;
constexpr size_t kMaxErrorBytes = 1024;

link::v1::ScanObservation Failed(link::v1::ScanObservation row, std::string message) {
  message.resize(std::min(message.size(), kMaxErrorBytes));
  row.set_error_message(message.empty() ? "the scan failed" : std::move(message));
  return row;
}

link::v1::ScanObservation RunScan(Scanner& scanner, const std::string& path,
                                  link::v1::ScanObservation row, CancelToken& cancel) {
  const auto output = scanner.Scan(path, cancel);
  if (!output.ok()) return Failed(std::move(row), std::string(output.status().message()));
  std::string bytes = ZstdCompress(output->SerializeAsString());
  if (bytes.size() > kMaxOutputBytes)
    return Failed(std::move(row), "the image holds more packages than a scan can tell of");
  row.set_output_zstd(std::move(bytes));
  return row;
}

}  // namespace

void ScanRunner::Scan(const link::v1::ScanAssignment& wanted, const std::string& recipe_digest,
                      std::shared_ptr<CancelToken> cancel, OnDone on_done) {
  link::v1::ScanObservation row;
  row.set_image_id(wanted.image_id());
  row.set_generation(wanted.generation());
  row.set_recipe_digest(recipe_digest);
  images_.Pin(recipe_digest);
  const auto done = [this, recipe_digest, on_done](const link::v1::ScanObservation& result) {
    images_.Unpin(recipe_digest);
    on_done(result);
  };
  const auto submitted =
      pool_.Submit([this, row, recipe_digest, cancel, done](CancelToken& pool_token) {
        pool_token.SetCallback([&cancel] { cancel->Cancel(); });
        const link::v1::ScanObservation result =
            RunScan(scanner_, images_.RootfsPath(recipe_digest), row, *cancel);
        pool_token.ClearCallback();
        loop_.Post([done, result] { done(result); });
      });
  if (submitted.ok()) return;
  const link::v1::ScanObservation refused =
      Failed(std::move(row), "the worker has too many images to scan at once");
  loop_.Post([done, refused] { done(refused); });
}

}  // namespace bunker::agent
