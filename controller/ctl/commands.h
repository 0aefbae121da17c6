// The commands of bunkerctl. Each takes what the user typed and returns the exit code.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controller/ctl/session.h"

namespace bunker::ctl {

struct RegisterImageOptions {
  std::string name;
  std::string ref;  // exactly one of ref and tar_path
  std::string tar_path;
  uint64_t size_mib = 2048;
  std::string display_name;
  std::string description;
  std::string scope;
  std::string arch;
  bool lazy_pull = false;
  std::optional<uint64_t> cpu_millicores;
  std::optional<uint64_t> memory_mb;
  std::optional<uint64_t> disk_mb;
  std::vector<std::string> preinstalled;
  std::string group;  // attached to it at once
  bool watch = false;
};

struct WatchOptions {
  std::string image;
  uint64_t timeout_s = 3600;
};

struct CreateGroupOptions {
  std::string name;
  std::string description;
  std::string scope;
  bool auto_images = false;
  std::vector<std::string> images;
  std::vector<std::string> workers;
};

struct CreateBunkerOptions {
  std::string image;     // exactly one of image and snapshot
  std::string snapshot;
  std::string name;
  std::string network_profile;
  std::vector<std::string> network_allowlist;
  std::optional<uint64_t> bandwidth_mbit;
  std::optional<uint64_t> disk_bytes_per_s;
  std::optional<uint64_t> disk_iops;
  std::string lifecycle_mode;
  std::string on_idle;
  bool start = true;
  std::optional<uint64_t> cpu_millicores;
  std::optional<uint64_t> memory_mb;
  std::optional<uint64_t> disk_mb;
  std::optional<uint64_t> max_lifetime_s;
  std::optional<uint64_t> idle_timeout_s;
  bool runs_main = false;         // the image's own command
  std::vector<std::string> args;  // of it, in place of the image's
  std::string restart;            // of it; "": never
  std::vector<std::string> env;            // K=V
  std::vector<std::string> labels;         // K=V
  std::vector<std::string> worker_labels;  // K=V
  bool wait = true;
  uint64_t wait_s = 120;
};

struct ExecOptions {
  std::string bunker;
  std::vector<std::string> argv;
  std::string shell;  // instead of argv
  std::string cwd;
  std::string user;
  std::vector<std::string> env;  // K=V
  bool send_stdin = false;
  uint64_t timeout_s = 60;
};

struct LogOptions {
  std::string bunker;
  std::string source;  // main or console; "": main
  bool follow = false;
};

struct CopyOptions {
  std::string from;  // a file here, "-", or BUNKER:/path
  std::string to;    // the same
  bool tar = false;  // the bytes are a tar, the path in the bunker is a folder
  std::string mode;  // octal; "" = that of the file here
};

struct RunOptions {
  std::string image;
  std::string memory = "";  // "512MiB", "1GiB", "512" (MB)
  std::string name;
  std::string metro;  // worker_labels.metro
  std::optional<uint64_t> replicas;
  std::vector<std::string> env;  // K=V
  std::vector<std::string> args;
  uint64_t wait_s = 120;
};

int RegisterImage(Session& session, const RegisterImageOptions& options);
int ListImages(Session& session, bool wide);
int ShowImage(Session& session, const std::string& image);
int WarmImage(Session& session, const std::string& image);
int DeactivateImage(Session& session, const std::string& image);
// Draws the fan-out until every row settled. Fails if one is not ready, or there is none.
int WatchImage(Session& session, const WatchOptions& options);

int CreateGroup(Session& session, const CreateGroupOptions& options);
int ListGroups(Session& session);
int ShowGroup(Session& session, const std::string& group);
int DeleteGroup(Session& session, const std::string& group);
// `noun` is "images" or "workers".
int AttachToGroup(Session& session, const std::string& group, const std::string& noun,
                  const std::string& ref);
int DetachFromGroup(Session& session, const std::string& group, const std::string& noun,
                    const std::string& ref);

// Every row of the audit chain, its hashes computed anew; `head_file` "" = none. Fails where
// anything was edited, deleted or put in; needs a key that sees all tenants.
int VerifyAudit(Session& session, const std::string& head_file);
int ShowAuditHead(Session& session);

int ListWorkers(Session& session);
int ShowWorker(Session& session, const std::string& worker);

int CreateBunker(Session& session, const CreateBunkerOptions& options);
int ListBunkers(Session& session, const std::string& status, bool wide);
// Creates it, and its replicas, and waits until all of them run.
int RunImage(Session& session, const RunOptions& options);
// Where a create would go, and why not elsewhere.
int ExplainPlacement(Session& session, const CreateBunkerOptions& options);
// Any call of the API, as JSON.
int CallApi(Session& session, const std::string& method, const std::string& path,
            const std::string& data);
int ShowBunker(Session& session, const std::string& bunker);
// `snapshot`: its disk is kept as one first.
int RemoveBunker(Session& session, const std::string& bunker, bool snapshot);
// What its main program or its console wrote; with follow until main has ended.
int ShowLogs(Session& session, const LogOptions& options);
// Prints each change of one bunker, until it has ended, or of all ("") until it is interrupted.
int FollowBunkers(Session& session, const std::string& bunker);
// Ends with the command's exit code, 128 + n after signal n, 124 after the time-out.
int ExecInBunker(Session& session, const ExecOptions& options);

// One file, or one folder as a tar, between here and a bunker. It appears whole or not at all.
int CopyFile(Session& session, const CopyOptions& options);
// Prints what changes in a folder of a bunker, until it is gone or this is interrupted.
int WatchFiles(Session& session, const std::string& bunker, const std::string& path);

// What a create sends.
absl::StatusOr<nlohmann::json> CreateBunkerBody(const CreateBunkerOptions& options);

// "512MiB" → MB as the API means them; errors name `flag`.
absl::StatusOr<uint64_t> ParseMemory(const std::string& text, const std::string& flag);

// "K=V" pairs as a JSON object; an entry without "=" is an error that names `flag`.
absl::StatusOr<nlohmann::json> ParsePairs(const std::vector<std::string>& pairs,
                                          const std::string& flag);

}  // namespace bunker::ctl
