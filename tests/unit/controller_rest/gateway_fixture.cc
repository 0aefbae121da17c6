#include "tests/unit/controller_rest/gateway_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <utility>

#include "absl/time/clock.h"
#include "common/base/id.h"
#include "common/base/sha256.h"
#include "common/base/unique_fd.h"
#include "controller/api/services.h"
#include "controller/init.h"
#include "controller/store/row_codec.h"

namespace bunker::controller {
namespace {

UniqueFd Connect(uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

void SendAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    ASSERT_GT(n, 0);
    text.remove_prefix(static_cast<size_t>(n));
  }
}

Answer Parse(const std::string& raw) {
  Answer answer;
  const size_t end = raw.find("\r\n\r\n");
  if (end == std::string::npos || raw.size() < 12) return answer;
  answer.status = std::stoi(raw.substr(9, 3));
  for (size_t at = raw.find("\r\n") + 2; at < end;) {
    const size_t line_end = raw.find("\r\n", at);
    const size_t colon = raw.find(": ", at);
    std::string name = raw.substr(at, colon - at);
    for (char& c : name) c = static_cast<char>(::tolower(c));
    answer.headers[name] = raw.substr(colon + 2, line_end - colon - 2);
    at = line_end + 2;
  }
  answer.body = raw.substr(end + 4);
  answer.json = Json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  return answer;
}

template <typename Row>
void Put(MemStore& store, Noun noun, const Row& row) {
  Batch batch;
  batch.push_back({noun, row.id, [row] { return EncodeRow(row); }});
  ASSERT_TRUE(CommitAndWait(store, std::move(batch)).ok());
}

}  // namespace

ExecBackend::Id ScriptedExec::Run(const Bunker&, ExecCommand command, Done done) {
  commands.push_back(std::move(command));
  const Id id = next_++;
  if (hold) {
    held_[id] = std::move(done);
    return id;
  }
  loop_.Post([this, done = std::move(done)]() mutable {
    if (failure.ok()) {
      done(outcome);
    } else {
      done(failure);
    }
  });
  return id;
}

void ScriptedExec::Cancel(Id id) {
  cancelled.push_back(id);
  const auto it = held_.find(id);
  if (it == held_.end()) return;
  loop_.Post([done = std::move(it->second)]() mutable {
    done(absl::CancelledError("the caller went away"));
  });
  held_.erase(it);
}

GatewayFixture::GatewayFixture() {
  const auto made = InitStore(store_, absl::Now());
  EXPECT_TRUE(made.ok()) << made.status();
  key_ = made->key;
  tenant_id_ = made->rows.tenant_id;
  partner_id_ = made->rows.partner_id;
}

GatewayFixture::~GatewayFixture() {
  if (http_ == nullptr) return;
  http_->Stop(absl::Seconds(5));
  thread_.Run([this] { core_.reset(); });
  thread_.Stop();
}

std::string GatewayFixture::AddPartner(const std::string& name) {
  const Partner partner{NewId("ptr_", absl::Now(), rng_), name, absl::Now()};
  Put(store_, Noun::kPartner, partner);
  return partner.id;
}

std::string GatewayFixture::AddTenant(const std::string& name, const std::string& partner_id) {
  Tenant tenant;
  tenant.id = NewId("tnt_", absl::Now(), rng_);
  tenant.name = name;
  tenant.partner_id = partner_id.empty() ? partner_id_ : partner_id;
  tenant.created_at = absl::Now();
  Put(store_, Noun::kTenant, tenant);
  return tenant.id;
}

std::string GatewayFixture::AddUser(const std::string& name, Role role,
                                    const std::string& tenant_id) {
  User user;
  user.id = NewId("usr_", absl::Now(), rng_);
  user.tenant_id = tenant_id.empty() ? tenant_id_ : tenant_id;
  user.name = name;
  user.role = role;
  user.created_at = absl::Now();
  Put(store_, Noun::kUser, user);
  last_user_id_ = user.id;
  const std::string secret = "sgk_" + RandomBase62(43);
  ApiKey key;
  key.id = NewId("key_", absl::Now(), rng_);
  key.sha256 = Sha256Hex(secret);
  key.user_id = user.id;
  key.tenant_id = user.tenant_id;
  key.name = name;
  key.created_at = absl::Now();
  if (name == "expired") key.expires_at = absl::Now() - absl::Hours(1);
  if (name == "revoked") key.revoked_at = absl::Now() - absl::Hours(1);
  Put(store_, Noun::kApiKey, key);
  return secret;
}

void GatewayFixture::Boot(Dispatcher::Options limits) {
  engine_ = std::make_unique<Engine>(EngineOptions(), rng_);
  ASSERT_TRUE(engine_->Load(store_, absl::Now()).ok());
  thread_.Run([this] {
    core_ = std::make_unique<Core>(thread_.loop(), store_, *engine_, Core::Options());
    core_->Start();
  });
  exec_ = std::make_unique<ScriptedExec>(thread_.loop());
  talks_ = std::make_unique<ScriptedTalks>(thread_.loop());
  cursors_ = std::make_unique<Cursors>(rng_.Bytes(32));
  dispatcher_ = std::make_unique<Dispatcher>(*core_, limits);
  reader_ = std::make_unique<AuditReader>(store_);
  keys_ = std::make_unique<KeyRing>(*KeyRing::Parse(KeyRing::NewKey(), "the fixture"));
  ServiceDeps deps{cursors_.get(), exec_.get(), "0.0.0", reader_.get(), keys_.get()};
  deps.talks = talks_.get();
  deps.tickets = &tickets_;
  RegisterAllServices(deps, dispatcher_.get());
  Gateway::Options options;
  options.tickets = &tickets_;
  auto gateway = Gateway::Create(*core_, *dispatcher_, options);
  ASSERT_TRUE(gateway.ok()) << gateway.status();
  gateway_ = *std::move(gateway);
  auto http = HttpServer::Start(HttpServerOptions(), gateway_.get());
  ASSERT_TRUE(http.ok()) << http.status();
  http_ = *std::move(http);
}

Answer GatewayFixture::Raw(const std::string& method, const std::string& path,
                           const std::string& headers, const std::string& body) {
  const UniqueFd fd = Connect(http_->port());
  SendAll(fd.get(), method + " " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" +
                        headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                        body);
  std::string got = ReadUntil(fd.get(), "\r\n\r\n");
  // A stream of events has no end: its head is its answer.
  const std::string head = got.substr(0, got.find("\r\n\r\n"));
  if (head.find("text/event-stream") == std::string::npos) got += ReadUntil(fd.get(), "");
  return Parse(got);
}

Answer GatewayFixture::Call(const std::string& method, const std::string& path,
                            const std::string& body) {
  const std::string type = body.empty() ? "" : "Content-Type: application/json\r\n";
  return Raw(method, kModule + path, AuthHeader() + type, body);
}

int GatewayFixture::OpenStream(const std::string& path, const std::string& key) {
  UniqueFd fd = Connect(http_->port());
  SendAll(fd.get(), "GET " + (kModule + path) +
                    " HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n"
                    "Authorization: Bearer " + key + "\r\n\r\n");
  return fd.release();
}

int GatewayFixture::SendOnly(const std::string& method, const std::string& path,
                             const std::string& body) {
  UniqueFd fd = Connect(http_->port());
  SendAll(fd.get(), method + " " + kModule + path + " HTTP/1.1\r\nHost: h\r\n" + AuthHeader() +
                        "Content-Type: application/json\r\nContent-Length: " +
                        std::to_string(body.size()) + "\r\n\r\n" + body);
  return fd.release();
}

bool GatewayFixture::Eventually(const std::function<bool()>& ready) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (absl::Now() < deadline) {
    if (ready()) return true;
    std::this_thread::yield();
  }
  return false;
}

std::string GatewayFixture::ReadUntil(int fd, const std::string& text) {
  std::string got;
  char chunk[65536];
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (absl::Now() < deadline) {
    if (!text.empty() && got.find(text) != std::string::npos) return got;
    pollfd item{fd, POLLIN, 0};
    if (::poll(&item, 1, 200) == 0) continue;
    const ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n <= 0) return got;
    got.append(chunk, static_cast<size_t>(n));
  }
  ADD_FAILURE() << "no end, no \"" << text << "\" in: " << got;
  return got;
}

std::string GatewayFixture::JoinWorker(const std::string& name, const Ownership& ownership,
                                       bool shared, Resources capacity) {
  const std::string token = Sha256Hex("token " + std::to_string(++tokens_));
  const auto worker = InTurn([&](Engine& engine, Turn& turn) {
    CreateJoinTokenSpec spec;
    spec.worker_name = name;
    spec.sha256 = token;
    spec.ownership = ownership;
    spec.shared = shared;
    EXPECT_TRUE(engine.CreateJoinToken(turn, spec).ok());
    return engine.Join(turn, token, name, Sha256Hex("credential " + name));
  });
  EXPECT_TRUE(worker.ok()) << worker.status();
  WorkerFacts facts;
  facts.capacity = capacity;
  facts.arch = Arch::kX86_64;
  facts.isolation = "tcg";
  facts.network_profiles = {"isolated", "registry", "allowlisted", "unrestricted", "transit"};
  facts.labels["metro"] = "fra";
  const std::string id = (*worker)->id;
  ConnectWorker(id, facts);
  InTurn([&](Engine& engine, Turn& turn) {
    engine.OnObservationsSynced(turn, id, {});
    return true;
  });
  return id;
}

void GatewayFixture::ConnectWorker(const std::string& worker_id, const WorkerFacts& facts) {
  facts_[worker_id] = facts;
  const auto session = InTurn([&](Engine& engine, Turn& turn) {
    return engine.ConnectWorker(turn, worker_id, facts, "boot", "0.1.0");
  });
  EXPECT_TRUE(session.ok()) << session.status();
}

void GatewayFixture::ReportBridge(const std::string& worker_id, const std::string& name) {
  WorkerFacts facts = facts_.at(worker_id);
  facts.bridges.insert(name);
  ConnectWorker(worker_id, facts);
}

void GatewayFixture::Observe(const std::string& worker_id, ImageObservation seen) {
  ObservedRow row{ImageRowName(seen.image_id), ++versions_[worker_id], std::move(seen)};
  InTurn([&](Engine& engine, Turn& turn) {
    engine.OnObservation(turn, worker_id, row);
    return true;
  });
}

void GatewayFixture::Observe(const std::string& worker_id, BunkerObservation seen) {
  ObservedRow row{BunkerRowName(seen.bunker_id), ++versions_[worker_id], std::move(seen)};
  InTurn([&](Engine& engine, Turn& turn) {
    engine.OnObservation(turn, worker_id, row);
    return true;
  });
}

void GatewayFixture::FinishBake(const std::string& worker_id, const std::string& image_id) {
  ImageObservation seen;
  seen.image_id = image_id;
  seen.attempt = 1;
  seen.status = CacheStatus::kBuilding;
  seen.stage = "pulling";
  seen.source = "registry";
  seen.bytes_done = 1000;
  seen.bytes_total = 4000;
  seen.rate_bytes_per_s = 1000;
  ResolvedImage resolved;
  resolved.repository = "docker.io/library/r-base";
  resolved.manifest_digest = "sha256:" + std::string(64, 'a');
  resolved.layers_bytes = 4000;
  resolved.config.cmd = {"/bin/bash"};
  resolved.config.env = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8"};
  resolved.config.working_dir = "/";
  seen.resolved = resolved;
  seen.resolved_arch = Arch::kX86_64;
  Observe(worker_id, seen);
  seen.status = CacheStatus::kReady;
  seen.stage = "";
  seen.bytes_done = 4000;
  seen.rootfs_digest = "fsverity-sha256:" + std::string(64, 'c');
  seen.recipe_digest = std::string(64, 'd');
  seen.allocated_bytes = 5000;
  Observe(worker_id, seen);
}

void GatewayFixture::FinishBoot(const std::string& worker_id, const std::string& bunker_id) {
  BunkerObservation seen;
  seen.bunker_id = bunker_id;
  seen.incarnation = 1;
  seen.status = BunkerStatus::kRunning;
  seen.isolation = "tcg";
  seen.start_kind = "cold";
  seen.timings.boot_ms = 1234.5;
  Observe(worker_id, seen);
}

}  // namespace bunker::controller
