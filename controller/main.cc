// bunker-controller: the daemon, and the two commands that an operator needs beside it.
#include <cstdint>
#include <cstdio>
#include <string>

#include <sys/stat.h>

#include <CLI/CLI.hpp>

#include "absl/time/clock.h"
#include "common/base/files.h"
#include "controller/config.h"
#include "controller/init.h"
#include "controller/link/admin_client.h"
#include "controller/seal_keys.h"
#include "controller/server.h"
#include "controller/store/sqlite_store.h"
#include "controller/version.h"

namespace bunker::controller {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "bunker-controller: %s\n", std::string(status.message()).c_str());
  return 1;
}

int Serve(const std::string& config_path) {
  BlockSignals();
  const auto config = LoadControllerConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  auto server = Server::Start(*config);
  if (!server.ok()) return Fail(server.status());
  return (*server)->Run();
}

int Init(const std::string& config_path) {
  const auto config = LoadControllerConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  ::umask(0077);
  if (const absl::Status made = MakeFolders(config->state_dir, 0700); !made.ok())
    return Fail(made);
  auto store = SqliteStore::Open(config->state_file(), SqliteStore::Options());
  if (!store.ok()) return Fail(store.status());
  const auto result = InitStore(**store, absl::Now());
  if (!result.ok()) return Fail(result.status());
  std::printf("partner  %s\ntenant   %s\nuser     %s (admin, super_admin)\nkey      %s\n",
              result->rows.partner_id.c_str(), result->rows.tenant_id.c_str(),
              result->rows.user_id.c_str(),
              result->key.c_str());
  std::fprintf(stderr, "The key is shown this once; keep it where you keep secrets.\n");
  return 0;
}

int RotateKey(const std::string& config_path) {
  const auto config = LoadControllerConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  ::umask(0077);
  if (const absl::Status done = RotateSealKey(config->state_dir); !done.ok()) return Fail(done);
  std::fprintf(stderr,
               "A new key stands first in %s/credentials.key; restart the daemon, which "
               "seals everything with it.\n",
               config->state_dir.c_str());
  return 0;
}

int JoinToken(const std::string& config_path, const std::string& worker, uint32_t ttl_s) {
  const auto config = LoadControllerConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  const auto grant = CreateJoinToken(config->admin_socket, worker, ttl_s, {});
  if (!grant.ok()) return Fail(grant.status());
  std::printf("%s\n", grant->token.c_str());
  std::fprintf(stderr, "For worker %s, once, until %s.\n", grant->worker_name.c_str(),
               absl::FormatTime(grant->expires_at).c_str());
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("The Bunker controller: images, groups and bunkers of all workers.");
  app.set_version_flag("--version", kVersion);
  std::string config = "/etc/bunker/controller.toml";
  std::string worker;
  uint32_t ttl_s = 600;
  const auto add_config = [&config](CLI::App* command) {
    command->add_option("--config", config, "the configuration file")->capture_default_str();
  };
  add_config(&app);
  CLI::App* init = app.add_subcommand(
      "init", "make the first tenant and its admin, and print the admin's key once");
  add_config(init);
  CLI::App* rotate_key = app.add_subcommand(
      "rotate-key",
      "put a new key for registry credentials first, as the daemon's user; the next start uses it");
  add_config(rotate_key);
  CLI::App* join_token = app.add_subcommand(
      "join-token", "make a single-use token with which a worker joins (needs the running daemon)");
  add_config(join_token);
  join_token->add_option("--worker", worker, "the worker's name")->required();
  join_token->add_option("--ttl-s", ttl_s, "how long the token is good for")
      ->capture_default_str()->check(CLI::Range(1, 600));
  app.require_subcommand(0, 1);
  CLI11_PARSE(app, argc, argv);
  if (init->parsed()) return Init(config);
  if (rotate_key->parsed()) return RotateKey(config);
  if (join_token->parsed()) return JoinToken(config, worker, ttl_s);
  return Serve(config);
}

}  // namespace
}  // namespace bunker::controller

int main(int argc, char** argv) { return bunker::controller::Main(argc, argv); }
