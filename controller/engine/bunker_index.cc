#include "controller/engine/bunker_index.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"

namespace bunker::controller {
namespace {

constexpr std::string_view kPrefix = "bnk_";
constexpr size_t kDigits = 32;

// Nothing where it is no hex digit of an id.
std::optional<uint64_t> DigitOf(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint64_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<uint64_t>(c - 'a' + 10);
  return std::nullopt;
}

void AppendHex(uint64_t value, std::string& text) {
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[(value >> shift) & 15];
}

}  // namespace

std::optional<BunkerIndex::Key> BunkerIndex::KeyOf(std::string_view id) {
  if (id.size() != kPrefix.size() + kDigits || id.substr(0, kPrefix.size()) != kPrefix) {
    return std::nullopt;
  }
  Key key;
  for (size_t i = 0; i < kDigits; ++i) {
    const std::optional<uint64_t> digit = DigitOf(id[kPrefix.size() + i]);
    if (!digit) return std::nullopt;
    uint64_t& half = i < kDigits / 2 ? key.high : key.low;
    half = half << 4 | *digit;
  }
  return key;
}

std::string BunkerIndex::IdOf(const Key& key) {
  std::string id(kPrefix);
  id.reserve(kPrefix.size() + kDigits);
  AppendHex(key.high, id);
  AppendHex(key.low, id);
  return id;
}

std::string BunkerIndex::ViewOf(const Caller& caller) {
  if (!caller.sees_all_bunkers) return "owner:" + caller.user_id;
  if (caller.super_admin()) return "all";
  if (caller.role == Role::kPartnerAdmin) return "partner:" + caller.partner_id;
  return "tenant:" + caller.tenant_id;
}

std::vector<std::string> BunkerIndex::ViewsOf(const Bunker& row) {
  return {"all", "partner:" + row.partner_id, "tenant:" + row.tenant_id, "owner:" + row.owner};
}

// Labels are kept for all views but the owners': few rows of a tenant have one.
std::string BunkerIndex::LabelViewOf(const Caller& caller) {
  return caller.sees_all_bunkers ? ViewOf(caller) : "tenant:" + caller.tenant_id;
}

// Lengths first: no value can look like another label.
std::string BunkerIndex::LabelKey(const std::string& view, const std::string& name,
                                  const std::string& value) {
  return view + "/" + std::to_string(name.size()) + "/" + name + "=" + value;
}

void BunkerIndex::Update(const Bunker* before, const Bunker* after) {
  if (before != nullptr && after != nullptr && before->status == after->status &&
      before->lifecycle_mode == after->lifecycle_mode && before->label_set == after->label_set) {
    return;  // whose it is never changes
  }
  if (before != nullptr) Put(*before, /*in=*/false);
  if (after != nullptr) Put(*after, /*in=*/true);
}

void BunkerIndex::Put(const Bunker& row, bool in) {
  const std::optional<Key> key = KeyOf(row.id);
  BUNKER_CHECK(key.has_value());
  const size_t slot = SlotOf(row.status, row.lifecycle_mode);
  std::vector<std::string> views = ViewsOf(row);
  for (const std::string& name : views) {
    Ids& ids = views_[name][slot];
    if (in) {
      ids.insert(*key);
    } else {
      ids.erase(*key);
    }
  }
  views.pop_back();  // the owner's: LabelViewOf()
  for (const auto& [name, value] : row.label_set) {
    for (const std::string& view : views) {
      const std::string label = LabelKey(view, name, value);
      Ids& ids = labels_[label];
      if (in) {
        ids.insert(*key);
      } else {
        ids.erase(*key);
        if (ids.empty()) labels_.erase(label);
      }
    }
  }
}

const BunkerIndex::Ids* BunkerIndex::SmallestLabel(const Caller& caller,
                                                   const BunkerFilter& filter) const {
  static const Ids* const none = new Ids();
  const std::string view = LabelViewOf(caller);
  const Ids* smallest = nullptr;
  for (const auto& [name, value] : filter.labels) {
    const auto it = labels_.find(LabelKey(view, name, value));
    const Ids* ids = it == labels_.end() ? none : &it->second;
    if (smallest == nullptr || ids->size() < smallest->size()) smallest = ids;
  }
  return smallest;
}

void BunkerIndex::Walk(const Caller& caller, const BunkerFilter& filter,
                       const std::string& after_id,
                       absl::FunctionRef<bool(const std::string& id)> take) const {
  std::vector<const Ids*> sources;
  size_t total = 0;
  if (const auto view = views_.find(ViewOf(caller)); view != views_.end()) {
    for (size_t slot = 0; slot < view->second.size(); ++slot) {
      const auto status = static_cast<BunkerStatus>(slot / kModes);
      if (!filter.statuses.empty() && filter.statuses.count(status) == 0) continue;
      if (filter.lifecycle && static_cast<size_t>(*filter.lifecycle) != slot % kModes) continue;
      if (view->second[slot].empty()) continue;
      sources.push_back(&view->second[slot]);
      total += view->second[slot].size();
    }
  }
  const Ids* label = SmallestLabel(caller, filter);
  if (label != nullptr && label->size() < total) sources = {label};

  const std::optional<Key> below = KeyOf(after_id);
  std::vector<std::pair<Ids::const_iterator, const Ids*>> heads;  // each points behind its next
  for (const Ids* ids : sources)
    heads.push_back({below ? ids->lower_bound(*below) : ids->end(), ids});
  while (true) {
    // A dozen sources at most: looking at all of them is cheaper than a heap.
    auto newest = heads.end();
    for (auto head = heads.begin(); head != heads.end(); ++head) {
      if (head->first == head->second->begin()) continue;
      if (newest == heads.end() || *std::prev(newest->first) < *std::prev(head->first)) {
        newest = head;
      }
    }
    if (newest == heads.end()) return;
    --newest->first;
    if (!take(IdOf(*newest->first))) return;
  }
}

}  // namespace bunker::controller
