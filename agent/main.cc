// bunker-agent: the daemon on a worker, and the few commands that its operator needs.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <string>

#include "agent/agent.h"
#include "agent/bake/bake_supervisor.h"
#include "agent/commands/bake_command.h"
#include "agent/commands/exit_codes.h"
#include "agent/commands/inspect_command.h"
#include "agent/config.h"
#include "agent/confined/confined_command.h"
#include "agent/link/join.h"
#include "agent/net/guard_child.h"
#include "agent/scan/scan_child.h"
#include "agent/version.h"
#include "common/base/files.h"
#include "common/base/log.h"

namespace bunker::agent {
namespace {

constexpr char kDefaultConfig[] = "/etc/bunker/agent.toml";

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "bunker-agent: %s\n", std::string(status.message()).c_str());
  return 1;
}

// Streams, pidfds and sockets per VM: take all the descriptors that the host allows.
void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 65536)
    Log(Severity::kWarning, "agent.file_limit", {{"limit", limit.rlim_cur}});
}

int Serve(const std::string& config_path) {
  const auto config = LoadAgentConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  RaiseFileLimit();
  ::umask(077);
  const absl::Status status = RunAgent(*config);
  return status.ok() ? 0 : Fail(status);
}

int JoinController(const std::string& config_path, std::string token, bool replace) {
  const auto config = LoadAgentConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  if (token == "-") {
    token.clear();
    for (int c = std::getchar(); c != EOF && c != '\n' && token.size() < 512; c = std::getchar())
      token += static_cast<char>(c);
  }
  if (absl::Status made = MakeFolders(config->state_dir, 0711); !made.ok()) return Fail(made);
  const auto identity =
      JoinAndSave(EndpointOf(*config), token, config->worker_name, config->state_dir, replace);
  if (!identity.ok()) return Fail(identity.status());
  std::printf("joined as worker %s (%s)\n", identity->name.c_str(), identity->worker_id.c_str());
  return 0;
}

int ProbeAccelerator(const std::string& config_path) {
  const auto config = LoadAgentConfig(config_path);
  if (!config.ok()) return Fail(config.status());
  const auto verdict = ProbeHost(*config);
  if (!verdict.ok()) return Fail(verdict.status());
  std::printf("%s\n", verdict->c_str());
  return 0;
}

CLI::App* AddBake(CLI::App& app, BakeCommandOptions* options) {
  CLI::App* bake = app.add_subcommand("bake", "pull an image and bake it into one file, by hand");
  bake->add_option("--source", options->source, "a reference, oci-layout:DIR[:NAME] or tar:FILE")
      ->required();
  bake->add_option("--out", options->out, "the file to make; must not exist")->required();
  bake->add_option("--size-mib", options->size_mib, "the file may be at most so large")
      ->required()
      ->check(CLI::Range(1u, 1u << 20));
  bake->add_option("--tree", options->tree, "keep the fs-verity tree here");
  bake->add_option("--arch", options->arch, "amd64 or arm64; default: this host's");
  bake->add_option("--config", options->config_path,
                   "take registries and limits from this file; default: none is read");
  bake->add_option("--blobs", options->blobs, "folder that keeps what is pulled; default: none");
  bake->add_flag("--json", options->json, "print the summary, or the error, as JSON");
  bake->add_flag("--quiet", options->quiet, "show no progress");
  bake->footer(
      "Ends with 0 made, 1 failed here, 2 wrong usage, 3 the image can't be baked,\n"
      "4 the image can't be had, 130 cancelled.");
  return bake;
}

CLI::App* AddInspect(CLI::App& app, InspectCommandOptions* options) {
  CLI::App* inspect = app.add_subcommand("inspect", "say what a baked file says about itself");
  inspect->add_option("FILE", options->file, "the file")->required();
  inspect->add_option("--tree", options->tree, "its fs-verity tree; default: FILE.verity if there");
  inspect->add_flag("--json", options->json, "print JSON");
  inspect->footer(
      "Ends with 0 as it was baked, 1 failed here, 2 wrong usage, 3 damaged or none of\n"
      "ours, 4 not readable.");
  return inspect;
}

int Main(int argc, char** argv) {
  CLI::App app{"The Bunker agent: pulls and bakes images, boots microVMs, runs commands in them"};
  app.set_version_flag("--version", kAgentVersion);
  std::string config_path = kDefaultConfig;
  app.add_option("--config", config_path, "configuration file")->capture_default_str();
  std::string token;
  bool replace = false;
  CLI::App* join = app.add_subcommand("join", "trade a join token for this worker's credential");
  join->add_option("--config", config_path, "configuration file");
  join->add_option("--token", token, "the token, or - to read it from standard input")->required();
  join->add_flag("--replace", replace, "join again although this worker has an identity");
  CLI::App* probe = app.add_subcommand("probe", "say which accelerator guests run on, and why");
  probe->add_option("--config", config_path, "configuration file");
  BakeCommandOptions bake_options;
  CLI::App* bake = AddBake(app, &bake_options);
  InspectCommandOptions inspect_options;
  CLI::App* inspect = AddInspect(app, &inspect_options);
  app.require_subcommand(0, 1);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  if (join->parsed()) return JoinController(config_path, token, replace);
  if (probe->parsed()) return ProbeAccelerator(config_path);
  if (bake->parsed()) return RunBakeCommand(bake_options);
  if (inspect->parsed()) return RunInspectCommand(inspect_options);
  return Serve(config_path);
}

}  // namespace
}  // namespace bunker::agent

int main(int argc, char** argv) {
  // First of all: the confined children are this same binary, without anything set up.
  const char* first = argc > 1 ? argv[1] : "";
  if (std::strcmp(first, bunker::agent::kBakeChildArgument) == 0)
    return bunker::agent::BakeChildMain();
  if (std::strcmp(first, bunker::agent::kScanChildArgument) == 0) bunker::agent::ScanChildMain();
  if (std::strcmp(first, bunker::agent::kNetGuardArgument) == 0)
    return bunker::agent::NetGuardMain();
  if (std::strcmp(first, bunker::agent::kConfinedCommandArgument) == 0)
    return bunker::agent::ConfinedCommandMain(argc, argv);
  return bunker::agent::Main(argc, argv);
}
