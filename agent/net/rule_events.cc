#include "agent/net/rule_events.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "agent/net/address_rules.h"

namespace bunker::agent {
namespace {

using nlohmann::json;

std::string WordAt(const json& list, size_t index) {
  if (!list.is_array() || index >= list.size()) return "";
  if (list[index].is_string()) return list[index].get<std::string>().substr(0, 32);
  return list[index].is_number_unsigned() ? std::to_string(list[index].get<uint32_t>()) : "";
}

uint64_t NumberAt(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
}

// {"elem": {"val": {"concat": [address, protocol, port]}, "timeout", "expires", "counter"}}
bool ReadElement(const json& entry, bool allowed, absl::Time now, v1::GuardEvent* event) {
  if (!entry.is_object() || !entry.contains("elem") || !entry["elem"].is_object()) return false;
  const json& elem = entry["elem"];
  if (!elem.contains("val") || !elem["val"].is_object() || !elem["val"].contains("concat"))
    return false;
  const json& words = elem["val"]["concat"];
  const uint64_t timeout = NumberAt(elem, "timeout"), expires = NumberAt(elem, "expires");
  event->set_dst(WordAt(words, 0));
  event->set_proto(WordAt(words, 1));
  const std::string port = WordAt(words, 2);
  event->set_port(port.empty() ? 0
                               : static_cast<uint32_t>(std::strtoul(port.c_str(), nullptr, 10)));
  event->set_allowed(allowed);
  event->set_rule("policy");
  const uint64_t age = timeout > expires ? timeout - expires : 0;
  event->set_at_unix_ms(absl::ToUnixMillis(now - absl::Seconds(static_cast<int64_t>(age))));
  if (elem.contains("counter") && elem["counter"].is_object())
    event->set_count(NumberAt(elem["counter"], "packets"));
  return true;
}

// What the profile transit refused, by the set that holds it; see transit_rules.
constexpr const char* kTransitSets[] = {"refused_mac", "refused_arp", "refused_source",
                                        "refused_type", "refused_dhcp"};

bool IsTransitSet(const std::string& name) {
  return std::find(std::begin(kTransitSets), std::end(kTransitSets), name) !=
         std::end(kTransitSets);
}

// {"elem": {"val": word or {"concat": words}, …}}: brought into the form that ReadElement() knows.
bool ReadTransitElement(const json& entry, const std::string& set, absl::Time now,
                        v1::GuardEvent* event) {
  if (!entry.is_object() || !entry.contains("elem") || !entry["elem"].is_object()) return false;
  json plain = entry;
  json& value = plain["elem"]["val"];
  json words = value.is_object() && value.contains("concat") ? value["concat"]
                                                             : json::array({value});
  value = {{"concat", json::array()}};
  if (!ReadElement(plain, /*allowed=*/false, now, event)) return false;
  const std::string what = set.substr(set.find('_') + 1);
  event->set_rule(what == "type" ? "ethertype" : what);
  if (what == "mac") {
    event->set_proto("ethernet");
    event->set_name(WordAt(words, 0));
  } else if (what == "arp") {
    event->set_proto("arp");
    event->set_dst(WordAt(words, 0));
  } else if (what == "source") {
    event->set_name(WordAt(words, 0));
    event->set_dst(WordAt(words, 1));
    event->set_proto(WordAt(words, 2));
  } else if (what == "type") {
    event->set_proto(WordAt(words, 0));
  } else {
    event->set_proto("udp");
    event->set_port(68);
    event->set_dst(WordAt(words, 0));
  }
  return true;
}

}  // namespace

absl::StatusOr<RulesSeen> ReadRules(const std::string& text, absl::Time now) {
  json root = json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains("nftables") || !root["nftables"].is_array())
    return absl::InternalError("nft printed no list of rules");
  RulesSeen seen;
  for (json& item : root["nftables"]) {
    if (!item.is_object() || !item.contains("set") || !item["set"].is_object()) continue;
    json& set = item["set"];
    const std::string name = set.value("name", "");
    const bool transit = IsTransitSet(name);
    if (!transit && name != "refused" && name != "refused_other" && name != "allowed") continue;
    // One that has the set's own time to live does not say it.
    const uint64_t timeout = NumberAt(set, "timeout");
    if (set.contains("elem") && set["elem"].is_array()) {
      for (json& entry : set["elem"]) {
        v1::GuardEvent event;
        if (entry.is_object() && entry.contains("elem") && entry["elem"].is_object() &&
            !entry["elem"].contains("timeout"))
          entry["elem"]["timeout"] = timeout;
        if (transit ? ReadTransitElement(entry, name, now, &event)
                    : ReadElement(entry, name == "allowed", now, &event))
          seen.events.push_back(event);
      }
    }
    set.erase("elem");
  }
  seen.text = root["nftables"].dump(-1, ' ', false, json::error_handler_t::replace);
  return seen;
}

}  // namespace bunker::agent
