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
#include "controller/ctl/command_table.h"
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

// Gives a list its --wide.
void AddWide(CLI::App* command, Action& chosen, int (*run)(Session&, bool)) {
  auto wide = std::make_shared<bool>(false);
  command->add_flag("--wide", *wide, "more columns");
  command->final_callback([&chosen, wide, run] {
    chosen = [wide, run](Session& session) { return run(session, *wide); };
  });
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
  AddWide(Command(image, "list", "All images that you may see", chosen, nullptr), chosen,
          ListImages);
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

void AddCreateBunker(CLI::App& bunker, Action& chosen, const std::string& verb,
                     const std::string& help, const std::vector<std::string>& tail,
                     int (*run)(Session&, const CreateBunkerOptions&)) {
  auto options = std::make_shared<CreateBunkerOptions>();
  CLI::App* command = Command(bunker, verb, help, chosen, [options, run, &tail](Session& session) {
    options->args = tail;
    return run(session, *options);
  });
  auto* origin = command->add_option_group("origin", "what it begins as");
  origin->add_option("image", options->image, "id, name or name@digest");
  origin->add_option("--snapshot", options->snapshot, "in place of an image: its id or name");
  origin->require_option(1);
  command->add_option("--name", options->name);
  command->add_option("--network", options->network_profile,
                      "isolated (default), registry, allowlisted or unrestricted");
  command->add_option("--network-allow", options->network_allowlist,
                      "with allowlisted: a host name, or *.x.y (repeatable)");
  command->add_option("--bandwidth", options->bandwidth_mbit, "Mbit/s, each way");
  command->add_option("--disk-bytes-per-s", options->disk_bytes_per_s, "reads and writes together");
  command->add_option("--disk-iops", options->disk_iops, "reads and writes together");
  command->add_option("--lifecycle", options->lifecycle_mode,
                      "ephemeral (default), session or persistent");
  command->add_option("--on-idle", options->on_idle, "stop (default) or pause");
  command->add_flag("!--no-start", options->start, "leave it stopped");
  command->add_option("--cpu-millicores", options->cpu_millicores);
  command->add_option("--memory-mb", options->memory_mb);
  command->add_option("--disk-mb", options->disk_mb);
  command->add_option("--max-lifetime-s", options->max_lifetime_s);
  command->add_option("--idle-timeout-s", options->idle_timeout_s);
  command->add_flag("--main", options->runs_main,
                    "start the image's own command; what stands behind -- is its arguments");
  command->add_option("--restart", options->restart, "with --main: never, on_failure or always");
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
  AddCreateBunker(bunker, chosen, "create", "Create a bunker and wait until it runs", tail,
                  CreateBunker);
  AddCreateBunker(bunker, chosen, "explain", "Where a create would go, and why not elsewhere", tail,
                  ExplainPlacement);
  auto status = std::make_shared<std::string>();
  auto wide = std::make_shared<bool>(false);
  CLI::App* list =
      Command(bunker, "list", "All bunkers that you may see", chosen,
              [status, wide](Session& session) { return ListBunkers(session, *status, *wide); });
  list->add_option("--status", *status, "running, stopped, failed, …");
  list->add_flag("--wide", *wide, "more columns");
  OneArgument(bunker, "show", "One bunker", "bunker", chosen, ShowBunker);
  auto followed = std::make_shared<std::string>();
  Command(bunker, "events", "Changes as they come, of one bunker or of all", chosen,
          [followed](Session& session) { return FollowBunkers(session, *followed); })
      ->add_option("bunker", *followed, "id or name; none: all");
  auto logs = std::make_shared<LogOptions>();
  CLI::App* log = Command(bunker, "logs", "What its main program wrote", chosen,
                          [logs](Session& session) { return ShowLogs(session, *logs); });
  log->add_option("bunker", logs->bunker, "id or name")->required();
  log->add_option("--source", logs->source, "main (default) or console");
  log->add_flag("-f,--follow", logs->follow, "go on as it writes");
  auto removed = std::make_shared<std::string>();
  auto keeps = std::make_shared<bool>(false);
  CLI::App* rm = Command(
      bunker, "rm", "End a bunker and delete its disk", chosen,
      [removed, keeps](Session& session) { return RemoveBunker(session, *removed, *keeps); });
  rm->add_option("bunker", *removed, "id or name")->required();
  rm->add_flag("--snapshot", *keeps, "keep what its disk holds as a snapshot first");
  AddExec(bunker, chosen, tail);
}

void AddFileCommands(CLI::App& app, Action& chosen) {
  auto copy = std::make_shared<CopyOptions>();
  CLI::App* command =
      Command(app, "cp", "Copy a file: bunkerctl cp FILE BUNKER:/path, or back", chosen,
              [copy](Session& session) { return CopyFile(session, *copy); });
  command->add_option("from", copy->from, "a file, - or BUNKER:/path")->required();
  command->add_option("to", copy->to, "the same; here, a folder to put it into, too")->required();
  command->add_flag("--tar", copy->tar, "a folder, as a tar here: tar c . | … cp --tar - B:/path");
  command->add_option("--mode", copy->mode, "octal, of the file in the bunker");
  CLI::App& file = *app.add_subcommand("file", NounHelp("file"));
  file.require_subcommand(1);
  struct Watched {
    std::string bunker, path;
  };
  auto watched = std::make_shared<Watched>();
  CLI::App* watch = Command(
      file, "watch", "What changes in a folder", chosen,
      [watched](Session& session) { return WatchFiles(session, watched->bunker, watched->path); });
  watch->add_option("bunker", watched->bunker)->required();
  watch->add_option("path", watched->path)->required();
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

void AddRun(CLI::App& app, Action& chosen, const std::vector<std::string>& tail) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = Command(app, "run", "Start an image: bunkerctl run IMAGE -m 512MiB -- ARGS",
                              chosen, [options, &tail](Session& session) {
                                options->args = tail;
                                return RunImage(session, *options);
                              });
  command->add_option("image", options->image, "id, name, name@digest or repository:tag")
      ->required();
  command->add_option("-m,--memory", options->memory, "such as 512MiB");
  command->add_option("--name", options->name);
  command->add_option("--replicas", options->replicas, "so many more beside the first");
  command->add_option("--metro", options->metro, "only on workers with this label metro");
  command->add_option("--env", options->env, "KEY=VALUE (repeatable)");
  command->add_option("--wait-s", options->wait_s, "how long to wait")->capture_default_str();
}

void AddApi(CLI::App& app, Action& chosen) {
  struct Options {
    std::string method;
    std::string path;
    std::string data;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = Command(
      app, "api", "Any call: bunkerctl api GET /images", chosen, [options](Session& session) {
        return CallApi(session, options->method, options->path, options->data);
      });
  command->add_option("method", options->method)
      ->required()
      ->check(CLI::IsMember({"GET", "POST", "PUT", "PATCH", "DELETE"}));
  command->add_option("path", options->path, "below the module, or from /v1/")->required();
  command->add_option("--data", options->data, "the body: JSON");
}

// A row of the table as a command of CLI11's.
void AddRow(CLI::App& app, const CommandRow& row, Action& chosen) {
  auto typed = std::make_shared<Typed>();
  const auto found =
      app.get_subcommands([&row](CLI::App* other) { return other->get_name() == row.noun; });
  CLI::App* noun = found.empty() ? nullptr : found.front();
  const bool alone = std::string(row.verb).empty();
  if (noun == nullptr && !alone) {
    noun = app.add_subcommand(row.noun, NounHelp(row.noun));
    noun->require_subcommand(1);
  }
  CLI::App* command =
      Command(alone ? app : *noun, alone ? row.noun : row.verb, row.help, chosen,
              [typed, &row](Session& session) { return RunCommand(session, row, *typed); });
  for (const char* argument : row.arguments)
    command->add_option(argument, typed->arguments[argument])->required();
  for (const Flag& flag : row.flags) {
    std::vector<std::string>& texts = typed->flags[flag.field];
    if (flag.kind == Kind::kFlag) {
      command->add_flag_callback(
          flag.name, [&texts] { texts = {""}; }, flag.help);
      continue;
    }
    CLI::Option* option = command->add_option(flag.name, texts, flag.help);
    // One value a time, so that it never swallows an argument behind it.
    option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    if (flag.kind == Kind::kList) option->delimiter(',');
  }
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
  AddFileCommands(app, chosen);
  AddAuditCommands(app, chosen);
  AddRun(app, chosen, tail);
  for (const CommandRow& row : CommandTable()) AddRow(app, row, chosen);
  AddApi(app, chosen);
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
