#include "controller/api/shell_tickets.h"

#include <utility>

#include "common/base/rng.h"
#include "common/base/sha256.h"

namespace bunker::controller {
namespace {

constexpr size_t kCharacters = 43;  // more than 256 bits

}  // namespace

std::string ShellTickets::Issue(std::string key_sha256, std::string bunker_id, absl::Time now) {
  std::string text = "skt_" + RandomBase62(kCharacters);
  MutexLock lock(mutex_);
  std::erase_if(tickets_, [now](const auto& item) { return item.second.expires_at <= now; });
  if (tickets_.size() >= kMaxTickets) return "";
  tickets_[Sha256Hex(text)] = {std::move(key_sha256), std::move(bunker_id), now + kLife};
  return text;
}

std::optional<ShellTickets::Ticket> ShellTickets::Take(std::string_view text, absl::Time now) {
  MutexLock lock(mutex_);
  auto node = tickets_.extract(Sha256Hex(text));
  if (node.empty() || node.mapped().expires_at <= now) return std::nullopt;
  return std::move(node.mapped());
}

}  // namespace bunker::controller
