#include "absl/time/time.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr char kGroups[] = "/availability-groups";
constexpr absl::Duration kTimeout = absl::Seconds(30);

std::string GroupPath(const std::string& group) {
  return std::string(kGroups) + "/" + Segment(group);
}

std::string CountOf(const Json& group, const std::string& key) {
  const auto found = group.find(key);
  return found != group.end() && found->is_array() ? std::to_string(found->size()) : "0";
}

int PrintGroup(Session& session, const Json& group) {
  if (session.json()) {
    session.PrintJson(group);
    return kExitOk;
  }
  session.Print("id           " + TextAt(group, "id") + "\nname         " +
                Printable(TextAt(group, "name")) + "\ndescription  " +
                Printable(TextAt(group, "description")) + "\nscope        " +
                TextAt(group, "scope") + "\n");
  for (const char* noun : {"image_ids", "worker_ids"}) {
    const auto found = group.find(noun);
    if (found == group.end()) continue;
    const std::string label = noun == std::string("image_ids") ? "image" : "worker";
    for (const Json& id : *found) {
      session.Print(label + std::string(13 - label.size(), ' ') +
                    (id.is_string() ? id.get<std::string>() : "?") + "\n");
    }
  }
  return kExitOk;
}

}  // namespace

int CreateGroup(Session& session, const CreateGroupOptions& options) {
  Json body = {{"name", options.name}};
  if (!options.description.empty()) body["description"] = options.description;
  if (!options.scope.empty()) body["scope"] = options.scope;
  if (options.auto_images) body["auto_images"] = true;
  auto group = session.api().Call("POST", kGroups, body, kTimeout);
  if (!group.ok()) return session.Fail(group.status());
  const std::string id = TextAt(*group, "id");
  const auto attach = [&](const std::string& noun, const std::string& ref) -> absl::Status {
    auto grown = session.api().Call("POST", GroupPath(id) + "/" + noun, {{"ref", ref}}, kTimeout);
    if (grown.ok()) group = std::move(grown);
    return grown.status();
  };
  for (const std::string& worker : options.workers) {
    if (absl::Status status = attach("workers", worker); !status.ok()) return session.Fail(status);
  }
  for (const std::string& image : options.images) {
    if (absl::Status status = attach("images", image); !status.ok()) return session.Fail(status);
  }
  if (!session.json()) session.Say("created group " + options.name + "\n");
  return PrintGroup(session, *group);
}

int ListGroups(Session& session) {
  auto groups = session.api().List(kGroups);
  if (!groups.ok()) return session.Fail(groups.status());
  if (session.json()) {
    session.PrintJson(*groups);
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& group : *groups) {
    rows.push_back({TextAt(group, "name"), TextAt(group, "scope"), CountOf(group, "image_ids"),
                    CountOf(group, "worker_ids"), TextAt(group, "id")});
  }
  session.Print(FormatTable({"NAME", "SCOPE", "IMAGES", "WORKERS", "ID"}, rows));
  return kExitOk;
}

int ShowGroup(Session& session, const std::string& group) {
  auto row = session.api().Get(GroupPath(group));
  return row.ok() ? PrintGroup(session, *row) : session.Fail(row.status());
}

int DeleteGroup(Session& session, const std::string& group) {
  auto row = session.api().Call("DELETE", GroupPath(group), nullptr, kTimeout);
  if (!row.ok()) return session.Fail(row.status());
  if (session.json()) {
    session.PrintJson(*row);
  } else {
    session.Print("deleted group " + group + "\n");
  }
  return kExitOk;
}

int AttachToGroup(Session& session, const std::string& group, const std::string& noun,
                  const std::string& ref) {
  auto row = session.api().Call("POST", GroupPath(group) + "/" + noun, {{"ref", ref}}, kTimeout);
  return row.ok() ? PrintGroup(session, *row) : session.Fail(row.status());
}

int DetachFromGroup(Session& session, const std::string& group, const std::string& noun,
                    const std::string& ref) {
  auto row = session.api().Call("DELETE", GroupPath(group) + "/" + noun + "/" + Segment(ref),
                                nullptr, kTimeout);
  return row.ok() ? PrintGroup(session, *row) : session.Fail(row.status());
}

}  // namespace bunker::ctl
