// bunkerctl: what it can be asked, and nothing else. CLI11 is compiled here alone.
#include <algorithm>
#include <csignal>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "controller/ctl/commands.h"

namespace bunker::ctl {
namespace {

// The command that the arguments chose.
using Action = std::function<int(Session&)>;

CLI::App* Command(CLI::App& parent, const std::string& name, const std::string& help,
                  Action& chosen, Action action) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->final_callback([&chosen, action = std::move(action)] { chosen = action; });
  return command;
}

// A command of one positional argument.
CLI::App* OneArgument(CLI::App& parent, const std::string& name, const std::string& help,
                      const std::string& argument, Action& chosen,
                      int (*run)(Session&, const std::string&)) {
  auto value = std::make_shared<std::string>();
  CLI::App* command = Command(parent, name, help, chosen,
                              [value, run](Session& session) { return run(session, *value); });
  command->add_option(argument, *value)->required();
  return command;
}

void AddRegister(CLI::App& image, Action& chosen) {
  auto options = std::make_shared<RegisterImageOptions>();
  CLI::App* command =
      Command(image, "register", "Register an image and start its fan-out", chosen,
              [options](Session& session) { return RegisterImage(session, *options); });
  command->add_option("name", options->name, "its name: a-z, 0-9, dot, dash, underscore")
      ->required();
  auto* source = command->add_option_group("source", "where its layers come from");
  source->add_option("--ref", options->ref, "a registry reference, such as docker.io/r-base:4.4");
  source->add_option("--tar", options->tar_path,
                     "a tarball or OCI layout that the worker can read");
  source->require_option(1);
  command->add_option("--size-mib", options->size_mib, "cap on the ext4 file")
      ->capture_default_str();
  command->add_option("--display-name", options->display_name);
  command->add_option("--description", options->description);
  command->add_option("--scope", options->scope, "tenant, partner or platform");
  command->add_option("--arch", options->arch, "X86_64 or AARCH64");
  command->add_flag("--lazy-pull", options->lazy_pull,
                    "bunkers may start where it is not cached yet");
  command->add_option("--cpu-millicores", options->cpu_millicores, "default for its bunkers");
  command->add_option("--memory-mb", options->memory_mb, "default for its bunkers");
  command->add_option("--disk-mb", options->disk_mb, "default for its bunkers");
  command->add_option("--preinstalled", options->preinstalled, "a,b,c")->delimiter(',');
  command->add_option("--group", options->group, "attach it to this group at once");
  command->add_flag("--watch", options->watch, "stay and show the fan-out");
}

void AddImageCommands(CLI::App& app, Action& chosen) {
  CLI::App& image = *app.add_subcommand("image", "Images: register, list, watch them fan out");
  image.require_subcommand(1);
  AddRegister(image, chosen);
  Command(image, "list", "All images that you may see", chosen, ListImages);
  OneArgument(image, "show", "One image and its cache rows", "image", chosen, ShowImage);
  OneArgument(image, "warm", "Start what is missing or failed again", "image", chosen, WarmImage);
  OneArgument(image, "deactivate", "Retire it: running bunkers go on", "image", chosen,
              DeactivateImage);
  auto options = std::make_shared<WatchOptions>();
  CLI::App* watch = Command(image, "watch", "A live bar per worker until all are ready", chosen,
                            [options](Session& session) { return WatchImage(session, *options); });
  watch->add_option("image", options->image)->required();
  watch->add_option("--timeout-s", options->timeout_s)->capture_default_str();
}

struct GroupEdit {
  std::string group;
  std::string image;
  std::string worker;
};

void AddGroupEdit(CLI::App& parent, const std::string& name, const std::string& help,
                  Action& chosen,
                  int (*edit)(Session&, const std::string&, const std::string&,
                              const std::string&)) {
  auto options = std::make_shared<GroupEdit>();
  CLI::App* command = Command(parent, name, help, chosen, [options, edit](Session& session) {
    return options->image.empty() ? edit(session, options->group, "workers", options->worker)
                                  : edit(session, options->group, "images", options->image);
  });
  command->add_option("group", options->group)->required();
  auto* side = command->add_option_group("side", "which side of the group");
  side->add_option("--image", options->image, "an image: id or name");
  side->add_option("--worker", options->worker, "a worker: id or name");
  side->require_option(1);
}

void AddGroupCommands(CLI::App& app, Action& chosen) {
  CLI::App& group =
      *app.add_subcommand("group", "Availability groups: which workers have which images");
  group.require_subcommand(1);
  auto options = std::make_shared<CreateGroupOptions>();
  CLI::App* create = Command(group, "create", "A new group", chosen, [options](Session& session) {
    return CreateGroup(session, *options);
  });
  create->add_option("name", options->name)->required();
  create->add_option("--description", options->description);
  create->add_option("--scope", options->scope, "tenant, partner or platform");
  create->add_flag("--auto-images", options->auto_images,
                   "every active image of its scope is a member");
  create->add_option("--image", options->images, "attach this image (repeatable)");
  create->add_option("--worker", options->workers, "attach this worker (repeatable)");
  Command(group, "list", "All groups", chosen, ListGroups);
  OneArgument(group, "show", "One group and its members", "group", chosen, ShowGroup);
  OneArgument(group, "delete", "Delete a group; what only it implied is evicted", "group", chosen,
              DeleteGroup);
  AddGroupEdit(group, "attach", "Add an image or a worker: warms every new pair", chosen,
               AttachToGroup);
  AddGroupEdit(group, "detach", "Take an image or a worker out", chosen, DetachFromGroup);
}

void AddWorkerCommands(CLI::App& app, Action& chosen) {
  CLI::App& worker = *app.add_subcommand("worker", "Workers: the hosts that run bunkers");
  worker.require_subcommand(1);
  Command(worker, "list", "All workers that you may see", chosen, ListWorkers);
  OneArgument(worker, "show", "One worker", "worker", chosen, ShowWorker);
}

void AddCreateBunker(CLI::App& bunker, Action& chosen) {
  auto options = std::make_shared<CreateBunkerOptions>();
  CLI::App* command =
      Command(bunker, "create", "Create a bunker and wait until it runs", chosen,
              [options](Session& session) { return CreateBunker(session, *options); });
  command->add_option("image", options->image, "id, name or name@digest")->required();
  command->add_option("--name", options->name);
  command->add_option("--network", options->network_profile, "isolated (default) or registry");
  command->add_option("--cpu-millicores", options->cpu_millicores);
  command->add_option("--memory-mb", options->memory_mb);
  command->add_option("--disk-mb", options->disk_mb);
  command->add_option("--max-lifetime-s", options->max_lifetime_s);
  command->add_option("--idle-timeout-s", options->idle_timeout_s);
  command->add_option("--env", options->env, "KEY=VALUE (repeatable)");
  command->add_option("--label", options->labels, "KEY=VALUE (repeatable)");
  command->add_option("--worker-label", options->worker_labels, "KEY=VALUE: only on such workers");
  command->add_flag("!--no-wait", options->wait, "return as soon as it is placed");
  command->add_option("--wait-s", options->wait_s, "how long to wait")->capture_default_str();
}

// `tail` is what stood behind "--": the command, untouched by our own options.
void AddExec(CLI::App& bunker, Action& chosen, const std::vector<std::string>& tail) {
  auto options = std::make_shared<ExecOptions>();
  CLI::App* command =
      Command(bunker, "exec", "Run a command in a bunker: bunkerctl bunker exec B -- ls -l /",
              chosen, [options, &tail](Session& session) {
                options->argv = tail;
                return ExecInBunker(session, *options);
              });
  command->add_option("bunker", options->bunker, "id or name")->required();
  command->add_option("--shell", options->shell,
                      "a string for the image's /bin/sh, in place of --");
  command->add_option("--cwd", options->cwd);
  command->add_option("--user", options->user, "name, uid or uid:gid");
  command->add_option("--env", options->env, "KEY=VALUE (repeatable)");
  command->add_option("--timeout-s", options->timeout_s)->capture_default_str();
  command->add_flag("-i,--stdin", options->send_stdin, "send standard input to it");
}

void AddBunkerCommands(CLI::App& app, Action& chosen, const std::vector<std::string>& tail) {
  CLI::App& bunker = *app.add_subcommand("bunker", "Bunkers: create them, run commands in them");
  bunker.require_subcommand(1);
  AddCreateBunker(bunker, chosen);
  auto status = std::make_shared<std::string>();
  CLI::App* list = Command(bunker, "list", "All bunkers that you may see", chosen,
                           [status](Session& session) { return ListBunkers(session, *status); });
  list->add_option("--status", *status, "running, stopped, failed, …");
  OneArgument(bunker, "show", "One bunker", "bunker", chosen, ShowBunker);
  OneArgument(bunker, "rm", "End a bunker and delete its disk", "bunker", chosen, RemoveBunker);
  AddExec(bunker, chosen, tail);
}

void AddAuditCommands(CLI::App& app, Action& chosen) {
  CLI::App& audit = *app.add_subcommand("audit", "What was done: check that nobody changed it");
  audit.require_subcommand(1);
  auto head = std::make_shared<std::string>();
  CLI::App* verify =
      Command(audit, "verify", "Compute the chain's hashes anew; says what was changed", chosen,
              [head](Session& session) { return VerifyAudit(session, *head); });
  verify->add_option("--head", *head, "a file with an exported head: shows a cut tail as well");
  Command(audit, "head", "The newest row's number and hash; keep it elsewhere", chosen,
          ShowAuditHead);
}

int Main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app("Bunker's command line. Reads SCAIGRID_HOST and SCAIGRID_API_KEY.", "bunkerctl");
  app.require_subcommand(1);
  app.fallthrough();
  GlobalOptions global;
  app.add_flag("--json", global.json, "print the API's JSON");
  app.add_option("--host", global.host, "instead of SCAIGRID_HOST");
  app.add_option("--ca-file", global.ca_file, "PEM of the authority that signed the controller");
  // CLI11 takes "-c" behind "--" for an option of ours, so it never sees that part.
  int own = 1;
  while (own < argc && std::string(argv[own]) != "--") ++own;
  const std::vector<std::string> tail(argv + std::min(own + 1, argc), argv + argc);
  Action chosen;
  AddImageCommands(app, chosen);
  AddGroupCommands(app, chosen);
  AddWorkerCommands(app, chosen);
  AddBunkerCommands(app, chosen, tail);
  AddAuditCommands(app, chosen);
  try {
    app.parse(own, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  auto session = Session::Open(global);
  if (!session.ok()) {
    const auto message = session.status().message();
    std::cerr << "error: " << std::string(message.data(), message.size()) << "\n";
    return kExitUsage;
  }
  return chosen(**session);
}

}  // namespace
}  // namespace bunker::ctl

int main(int argc, char** argv) {
  return bunker::ctl::Main(argc, argv);
}
