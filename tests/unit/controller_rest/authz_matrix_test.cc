// Every cell of authz_matrix.txt asked through the real gateway: a table that people wrote from the
// contract, against what the product does. A route that the table lacks is a failure.
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "common/base/sha256.h"
#include "controller/engine/snapshots.h"
#include "controller/model/api_key.h"
#include "controller/store/row_codec.h"
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

constexpr const char* kCallers[] = {"viewer", "user", "admin", "partner", "super"};
constexpr size_t kCallerCount = std::size(kCallers);

struct Line {
  std::string label;
  std::vector<std::string> verdicts;  // one for each caller
  std::string body;                   // "" = the route's
  int number = 0;
};

struct TableRoute {
  std::string verb;
  std::string path;  // as the descriptor writes it
  std::string body;
  std::string query;  // "?path=/f"
  std::vector<Line> lines;
  std::vector<Line> sees;
};

struct MatrixTable {
  std::vector<TableRoute> routes;
  std::set<std::string> is_public;  // "GET /health"
  std::set<std::string> is_signed_in;
};

std::string FullPath(const std::string& path) {
  return path.rfind("/m/", 0) == 0 ? kModule + path.substr(2) : path;
}

MatrixTable ReadTable(const std::string& file) {
  MatrixTable table;
  std::ifstream in(file);
  EXPECT_TRUE(in.good()) << file;
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    std::istringstream words(text);
    std::string first;
    if (!(words >> first) || first[0] == '#') continue;
    std::string verb, path;
    if (first == "==" || first == "public" || first == "signed-in") {
      words >> verb >> path;
      path = FullPath(path);
      if (first == "public") table.is_public.insert(verb + " " + path);
      if (first == "signed-in") table.is_signed_in.insert(verb + " " + path);
      if (first == "==") table.routes.push_back({verb, path, "", "", {}, {}});
      continue;
    }
    TableRoute& route = table.routes.back();
    if (first == "body") {
      route.body = text.substr(text.find('{'));
      continue;
    }
    if (first == "query") {
      words >> route.query;
      continue;
    }
    Line line;
    line.number = number;
    line.label = first;
    if (first == "sees") words >> line.label;
    for (size_t i = 0; i < kCallerCount; ++i) {
      line.verdicts.emplace_back();
      EXPECT_TRUE(words >> line.verdicts.back()) << "line " << number;
    }
    const size_t brace = text.find('{');
    if (brace != std::string::npos) line.body = text.substr(brace);
    (first == "sees" ? route.sees : route.lines).push_back(std::move(line));
  }
  return table;
}

// "none" and 404 are told apart by what they say.
bool IsAsTold(const Answer& answer, const std::string& verdict) {
  const bool has_none = answer.message().find("no scan of the image") != std::string::npos;
  if (verdict == "none") return answer.status == 404 && has_none;
  return std::to_string(answer.status) == verdict && !has_none;
}

class AuthzMatrixTest : public GatewayFixture {
 protected:
  AuthzMatrixTest() {
    const std::string partner2 = AddPartner("partner two");
    tenant_of_["own"] = tenant_id_;
    tenant_of_["sibling"] = AddTenant("sibling");
    tenant_of_["foreign"] = AddTenant("foreign", partner2);
    partner_of_["own"] = partner_of_["sibling"] = partner_of_["partner"] = partner_id_;
    partner_of_["foreign"] = partner_of_["partner2"] = partner2;
    constexpr Role kRoles[] = {Role::kTenantViewer, Role::kTenantUser, Role::kTenantAdmin,
                               Role::kPartnerAdmin, Role::kSuperAdmin};
    for (size_t i = 0; i < kCallerCount; ++i) {
      keys_[kCallers[i]] = AddUser(kCallers[i], kRoles[i]);
      users_[kCallers[i]] = last_user_id_;
    }
    for (const char* owner : {"own", "sibling", "foreign"}) {
      // Not below the owner's administrator, so that the partner admins see them, too.
      makers_[owner] =
          AddUser(fmt::format("maker {}", owner), Role::kTenantAdmin, tenant_of_[owner]);
    }
    makers_["partner"] = AddUser("maker partner", Role::kPartnerAdmin, tenant_of_["sibling"]);
    makers_["partner2"] = AddUser("maker partner2", Role::kPartnerAdmin, tenant_of_["foreign"]);
    makers_["shared"] = key_;
  }

  // ---- what a cell is about -------------------------------------------------------------------

  std::string Fresh() { return "n" + std::to_string(++fresh_); }

  std::string Made(const std::string& key, const std::string& path, const std::string& body) {
    const Answer answer =
        Raw("POST", path, "Authorization: Bearer " + key + "\r\nContent-Type: application/json\r\n",
            body);
    EXPECT_EQ(answer.status, 201) << path << " " << body << answer.body;
    return answer.status == 201 ? answer.data().value("id", "") : "";
  }
  std::string MadeInModule(const std::string& owner, const std::string& noun, Json body) {
    body["scope"] = owner == "shared"                           ? "platform"
                    : owner == "partner" || owner == "partner2" ? "partner"
                                                                : "tenant";
    body["name"] = Fresh();
    return Made(makers_.at(owner), kModule + noun, body.dump());
  }

  std::string UserOf(const std::string& owner, const std::string& caller) {
    if (owner == "self") return users_.at(caller);
    const bool here = owner == "peer" || owner == "stronger" || owner == "senior";
    const std::string tenant = tenant_of_[here ? "own" : owner];
    const Json body = {{"name", Fresh()},
                       {"role", owner == "stronger" ? "super_admin"
                                : owner == "senior" ? "partner_admin"
                                                    : "tenant_user"},
                       {"tenant_id", tenant}};
    return Made(key_, "/v1/users", body.dump());
  }

  std::string BunkerOf(const std::string& owner, const std::string& caller) {
    Caller who;
    who.tenant_id = tenant_of_[owner == "peer" ? "own" : owner];
    who.partner_id = partner_of_[owner == "peer" ? "own" : owner];
    who.user_id = owner == "own" ? users_.at(caller) : "usr_" + std::string(32, '1');
    CreateBunkerSpec spec;
    spec.image = baked_;
    spec.cpu_millicores = 50;
    spec.memory_mb = 64;
    const auto bunker = InTurn(
        [&](Engine& engine, Turn& turn) { return engine.CreateBunker(turn, who, spec, nullptr); });
    EXPECT_TRUE(bunker.ok()) << bunker.status();
    if (!bunker.ok()) return "";
    FinishBoot(baker_, (*bunker)->id);
    return (*bunker)->id;
  }

  std::string SnapshotOf(const std::string& owner, const std::string& caller) {
    const std::string bunker = BunkerOf(owner, caller);
    const auto taken = InTurn([&](Engine& engine, Turn& turn) {
      auto row = engine.snapshots().Take(turn, OperatorCaller(), bunker, {});
      if (!row.ok()) return row;
      SnapshotObservation seen;
      seen.snapshot_id = (*row)->id;
      seen.status = SnapshotObservation::Status::kReady;
      engine.OnObservation(turn, baker_, {SnapshotRowName((*row)->id), 1, seen});
      return row;
    });
    EXPECT_TRUE(taken.ok()) << taken.status();
    return taken.ok() ? (*taken)->id : "";
  }

  std::string WorkerOf(const std::string& owner) {
    if (!fresh_workers_ && workers_.count(owner) > 0) return workers_[owner];
    Ownership ownership = {Scope::kTenant, tenant_of_[owner], partner_of_[owner]};
    if (owner == "partner" || owner == "partner2")
      ownership = {Scope::kPartner, "", partner_of_[owner]};
    const bool at_platform = owner == "shared" || owner == "unshared";
    if (at_platform) ownership = {Scope::kPlatform, "", ""};
    const std::string id = JoinWorker("w-" + Fresh(), ownership, owner == "shared");
    if (!fresh_workers_) workers_[owner] = id;
    return id;
  }

  // A bridge that `owner`'s worker tells of from now on.
  std::string ReportedBy(const std::string& owner) {
    const std::string name = Fresh();
    ReportBridge(WorkerOf(owner), name);
    return name;
  }

  std::string BridgeOf(const std::string& owner) {
    const std::string id = WorkerOf(owner);
    ReportBridge(id, "n" + std::to_string(fresh_ + 1));  // as MadeInModule() is about to call it
    const std::map<std::string, std::string> users = {
        {"partner", "sibling"}, {"partner2", "foreign"}, {"shared", "own"}};
    Json body = Json::object();
    if (const auto it = users.find(owner); it != users.end())
      body["tenant_ids"] = {tenant_of_.at(it->second)};
    return MadeInModule(owner, "/bridges", body);
  }

  std::string AssignmentOf(const std::string& owner, const std::string& caller) {
    const std::string tenant = owner == "stronger" ? "own" : owner;
    const Json body = {{"profile_id", Thing("profile", tenant, caller)},
                       {"target_kind", "user"},
                       {"target_id", UserOf(tenant, caller)}};
    return Made(owner == "stronger" ? key_ : makers_.at(owner),
                std::string(kModule) + "/quota-assignments", body.dump());
  }

  std::string AccountOf(const std::string& noun, const std::string& owner,
                        const std::string& caller) {
    if (noun == "user") return UserOf(owner, caller);
    if (noun == "key") {
      const Json body = {{"name", Fresh()}, {"user_id", UserOf(owner, caller)}};
      return Made(key_, "/v1/api-keys", body.dump());
    }
    if (noun == "usergroup") {
      Json body = {{"name", Fresh()},
                   {"tenant_id", tenant_of_[owner == "stronger" ? "own" : owner]}};
      if (owner == "stronger") body["permissions"] = {"scaibunker:admin:platform"};
      return Made(key_, "/v1/groups", body.dump());
    }
    if (noun == "tenant" && owner == "own") return tenant_id_;
    if (noun == "tenant") {
      const Json body = {{"name", Fresh()}, {"partner_id", partner_of_[owner]}};
      return Made(key_, "/v1/tenants", body.dump());
    }
    if (noun == "partner" && owner == "own") return partner_id_;
    if (noun == "partner") return Made(key_, "/v1/partners", Json{{"name", Fresh()}}.dump());
    return "";
  }

  // What the path calls a fresh `noun` of `owner`'s, as `caller` is to meet it.
  std::string Thing(const std::string& noun, const std::string& owner, const std::string& caller) {
    static const std::map<std::string, std::string> prefixes = {
        {"image", "img_"},  {"group", "ag_"},     {"usergroup", "grp_"}, {"user", "usr_"},
        {"key", "key_"},    {"tenant", "tnt_"},   {"partner", "ptr_"},   {"worker", "wrk_"},
        {"bunker", "bnk_"}, {"project", "tnt_"},  {"credential", "x"},   {"token", "wtk_"},
        {"profile", "qp_"}, {"assignment", "qa_"}, {"snapshot", "snap_"}, {"bridge", "br_"}};
    if (owner == "missing") return prefixes.at(noun) + std::string(32, '0');
    if (const std::string id = AccountOf(noun, owner, caller); !id.empty()) return id;
    if (noun == "project") return tenant_of_.at(owner);
    if (noun == "image" && owner == "baked") return baked_;
    if (noun == "image") {
      return MadeInModule(
          owner, "/images",
          {{"build_source", {{"kind", "oci"}, {"ref", "docker.io/r-base:4.4"}}}, {"size_mib", 64}});
    }
    if (noun == "group") return MadeInModule(owner, "/availability-groups", Json::object());
    if (noun == "credential") {  // has a name and no id
      MadeInModule(owner, "/registry-credentials",
                   {{"host", "registry.example"}, {"username", "u"}, {"password", "p"}});
      return "n" + std::to_string(fresh_);
    }
    if (noun == "token") return MadeInModule(owner, "/worker-tokens", Json::object());
    if (noun == "profile") return MadeInModule(owner, "/quota-profiles", Json::object());
    if (noun == "assignment") return AssignmentOf(owner, caller);
    if (noun == "worker") return WorkerOf(owner);
    if (noun == "bunker") return BunkerOf(owner, caller);
    if (noun == "snapshot") return SnapshotOf(owner, caller);
    if (noun == "reported") return ReportedBy(owner);
    if (noun == "bridge") return BridgeOf(owner);
    ADD_FAILURE() << "the test makes no " << noun;
    return "";
  }

  // ---- asking ---------------------------------------------------------------------------------

  std::string Filled(std::string text, const std::string& label, const std::string& caller) {
    for (size_t at; (at = text.find('$')) != std::string::npos;) {
      size_t end = at + 1;
      while (end < text.size() && (::isalnum(text[end]) || text[end] == '.' || text[end] == '_'))
        ++end;
      const std::string word = text.substr(at + 1, end - at - 1);
      const size_t dot = word.find('.');
      const std::string value = word == "new" ? Fresh()
                                : word == "case"
                                    ? label
                                    : Thing(word.substr(0, dot), word.substr(dot + 1), caller);
      text.replace(at, end - at, value);
    }
    return text;
  }

  // The path with a thing in place of each variable.
  std::string PathFor(const TableRoute& route, const std::string& label,
                      const std::string& caller) {
    std::string path = route.path;
    std::string owners = label;
    for (size_t at; (at = path.find('{')) != std::string::npos;) {
      const size_t end = path.find('}', at);
      std::string noun = path.substr(at + 1, end - at - 1);
      if (noun == "pid") {  // a part of its bunker
        path.replace(at, end - at + 1, "7");
        continue;
      }
      if (noun == "group" && path.rfind("/v1/groups", 0) == 0) noun = "usergroup";
      if (noun == "project_id") noun = "project";
      if (noun == "id") noun = "image";
      if (noun == "name") noun = "credential";
      const size_t plus = owners.find('+');
      path.replace(at, end - at + 1, Thing(noun, owners.substr(0, plus), caller));
      if (plus != std::string::npos) owners = owners.substr(plus + 1);
    }
    return path;
  }

  Answer Ask(const TableRoute& route, const std::string& path, const std::string& body,
             const std::string& key) {
    std::string headers = key.empty() ? "" : "Authorization: Bearer " + key + "\r\n";
    if (!body.empty()) headers += "Content-Type: application/json\r\n";
    return Raw(route.verb, path + route.query, headers, body);
  }

  // The image and the worker that bunkers are made with.
  void MakeGround() {
    baker_ = JoinWorker("baker", {Scope::kPlatform, "", ""}, true,
                        {40'000'000, 40'000'000, 400'000'000});
    baked_ = Thing("image", "shared", "");
    const std::string group = Thing("group", "shared", "");
    for (const auto& [noun, ref] :
         std::map<std::string, std::string>{{"images", baked_}, {"workers", baker_}}) {
      const Answer attached =
          Call("POST", "/availability-groups/" + group + "/" + noun, Json{{"ref", ref}}.dump());
      ASSERT_EQ(attached.status, 200) << attached.body;
    }
    FinishBake(baker_, baked_);
  }

  std::map<std::string, std::string> keys_;    // by caller
  std::map<std::string, std::string> users_;   // by caller
  std::map<std::string, std::string> makers_;  // keys, by owner
  std::map<std::string, std::string> tenant_of_;
  std::map<std::string, std::string> partner_of_;
  std::map<std::string, std::string> workers_;
  std::string baked_;
  std::string baker_;
  int fresh_ = 0;
  bool fresh_workers_ = false;  // they are about to be removed
};

std::string Name(const Route& route) {
  std::string path;
  for (const Route::Segment& segment : route.segments)
    path += "/" + (segment.is_variable ? "{" + segment.text + "}" : segment.text);
  return route.verb + " " + path;
}

TEST_F(AuthzMatrixTest, EveryCell) {
  const MatrixTable table = ReadTable(BUNKER_AUTHZ_MATRIX);
  Boot();
  MakeGround();
  std::set<std::string> listed;
  for (const TableRoute& route : table.routes)
    EXPECT_TRUE(listed.insert(route.verb + " " + route.path).second) << route.path << " is twice";
  std::set<std::string> served;
  for (const Route& route : gateway_->router().routes()) served.insert(Name(route));
  for (const std::string& name : served)
    EXPECT_EQ(listed.count(name), 1u) << name << " is not in the table: add what the contract says";
  for (const std::string& name : listed)
    EXPECT_EQ(served.count(name), 1u) << name << " is in the table and not served";

  int cells = 0;
  int wrong = 0;
  for (const TableRoute& route : table.routes) {
    if (served.count(route.verb + " " + route.path) == 0) continue;
    fresh_workers_ =
        route.verb == "DELETE" && route.path == kModule + std::string("/workers/{worker}");
    for (const Line& line : route.lines) {
      for (size_t i = 0; i < kCallerCount; ++i) {
        const std::string caller = kCallers[i];
        const std::string path = PathFor(route, line.label, caller);
        const std::string body =
            Filled(line.body.empty() ? route.body : line.body, line.label, caller);
        const Answer answer = Ask(route, path, body, keys_[caller]);
        ++cells;
        if (IsAsTold(answer, line.verdicts[i])) continue;
        ++wrong;
        ADD_FAILURE() << "line " << line.number << ": " << route.verb << " " << route.path << " "
                      << line.label << " as " << caller << ": " << answer.status << ", not "
                      << line.verdicts[i] << "\n"
                      << body << "\n"
                      << answer.body;
      }
    }
    for (const Line& line : route.sees) {
      const size_t slash = route.path.rfind('/');
      static const std::map<std::string, std::string> nouns = {
          {"images", "image"},
          {"availability-groups", "group"},
          {"groups", "usergroup"},
          {"users", "user"},
          {"api-keys", "key"},
          {"tenants", "tenant"},
          {"partners", "partner"},
          {"workers", "worker"},
          {"bunkers", "bunker"},
          {"snapshots", "snapshot"},
          {"bridges", "bridge"},
          {"registry-credentials", "credential"},
          {"worker-tokens", "token"},
          {"quota-profiles", "profile"},
          {"quota-assignments", "assignment"}};
      for (size_t i = 0; i < kCallerCount; ++i) {
        const std::string id =
            Thing(nouns.at(route.path.substr(slash + 1)), line.label, kCallers[i]);
        const Answer answer = Ask(route, route.path + "?limit=200", "", keys_[kCallers[i]]);
        bool seen = false;
        if (answer.status == 200) {
          for (const Json& row : answer.data())
            seen = seen || row.value(row.contains("id") ? "id" : "name", "") == id;
        }
        ++cells;
        if (seen == (line.verdicts[i] == "y")) continue;
        ++wrong;
        ADD_FAILURE() << "line " << line.number << ": " << route.path << " sees " << line.label
                      << " as " << kCallers[i] << ": " << seen << ", " << answer.status;
      }
    }
  }
  std::cout << "authorisation matrix: " << table.routes.size() << " routes, " << cells << " cells, "
            << wrong << " wrong\n";
  RecordProperty("cells", cells);
}

TEST_F(AuthzMatrixTest, WhoHasNoWorkingKeyHasNothing) {
  const MatrixTable table = ReadTable(BUNKER_AUTHZ_MATRIX);
  const std::string revoked = AddUser("revoked", Role::kSuperAdmin);
  const std::string expired = AddUser("expired", Role::kSuperAdmin);
  const std::string disabled = AddUser("disabled", Role::kTenantAdmin);
  const std::string disabled_id = last_user_id_;
  const std::string stopped_tenant = AddTenant("stopped");
  const std::string suspended = AddUser("of stopped", Role::kTenantAdmin, stopped_tenant);
  Boot();
  ASSERT_EQ(Raw("PATCH", "/v1/users/" + disabled_id,
                AuthHeader() + "Content-Type: application/json\r\n", R"({"status": "disabled"})")
                .status,
            200);
  ASSERT_EQ(Raw("PATCH", "/v1/tenants/" + stopped_tenant,
                AuthHeader() + "Content-Type: application/json\r\n", R"({"status": "suspended"})")
                .status,
            200);
  const Answer bare = Raw(
      "POST", "/v1/api-keys", AuthHeader() + "Content-Type: application/json\r\n",
      Json{{"name", "bare"},
           {"user_id", users_["admin"]},
           {"permissions", {"scaibunker:network:registry"}}}
          .dump());
  ASSERT_EQ(bare.status, 201) << bare.body;
  struct Case {
    std::string key;
    int status;
    const char* code;
  };
  const std::vector<Case> cases = {{"", 401, "AUTH_TOKEN_MISSING"},
                                   {NewApiKeySecret(), 401, "AUTH_TOKEN_INVALID"},
                                   {revoked, 401, "AUTH_TOKEN_INVALID"},
                                   {expired, 401, "SESSION_EXPIRED"},
                                   {disabled, 401, "AUTH_TOKEN_INVALID"},
                                   {suspended, 401, "AUTH_TOKEN_INVALID"},
                                   {bare.data()["key"], 403, "AUTHZ_PERMISSION_DENIED"}};
  int cells = 0;
  for (const TableRoute& route : table.routes) {
    const std::string name = route.verb + " " + route.path;
    std::string path = route.path;
    for (size_t at; (at = path.find('{')) != std::string::npos;)
      path.replace(at, path.find('}', at) - at + 1, "none");
    for (const Case& one : cases) {
      // As refused with a body that is wrong as with one that is right.
      const Answer answer = Ask(route, path, route.body.empty() ? "" : "{\"x\": 1}", one.key);
      ++cells;
      const bool open = table.is_public.count(name) > 0 ||
                        (one.status == 403 && table.is_signed_in.count(name) > 0);
      if (open) {
        EXPECT_EQ(answer.status, 200) << name;
      } else {
        EXPECT_EQ(answer.status, one.status) << name << answer.body;
        // The adapter spells its errors as the other API does.
        if (route.path.rfind("/v1/{project_id}", 0) != 0) {
          EXPECT_EQ(answer.code(), one.code) << name;
        }
      }
    }
  }
  std::cout << "without a working key: " << cells << " cells\n";
}

// What may not be seen is told as what is not there: the same words, but for the id.
TEST_F(AuthzMatrixTest, ForeignIsToldAsMissing) {
  const MatrixTable table = ReadTable(BUNKER_AUTHZ_MATRIX);
  Boot();
  MakeGround();
  int pairs = 0;
  for (const TableRoute& route : table.routes) {
    const bool has_both = [&] {
      bool foreign = false, missing = false;
      for (const Line& line : route.lines) {
        foreign = foreign || (line.label == "foreign" && line.verdicts[2] == "404");
        missing = missing || line.label == "missing";
      }
      return foreign && missing && route.path.find('{') == route.path.rfind('{') &&
             route.path.find('{') != std::string::npos;
    }();
    if (!has_both) continue;
    const auto told = [&](const std::string& owner) {
      const std::string path = PathFor(route, owner, "admin");
      const Answer answer = Ask(route, path, Filled(route.body, owner, "admin"), keys_["admin"]);
      std::string text = answer.message();
      const size_t from = route.path.find('{');
      const std::string id = path.substr(from, path.find('/', from) - from);
      for (size_t at; (at = text.find(id)) != std::string::npos;) text.replace(at, id.size(), "ID");
      return std::to_string(answer.status) + " " + text;
    };
    EXPECT_EQ(told("foreign"), told("missing")) << route.path;
    ++pairs;
  }
  EXPECT_GE(pairs, 15);
}

}  // namespace
}  // namespace bunker::controller
