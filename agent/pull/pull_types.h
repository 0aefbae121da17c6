// What a pull is asked for and what it answers with. Plain values.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/http/proxy.h"
#include "common/oci/digest.h"
#include "common/oci/image_config.h"
#include "common/oci/manifest.h"

namespace bunker::agent {

// What the operator says of one registry. Hosts without an entry are reached over https with the
// system's CAs, anonymously, and only at addresses that the address filter lets through.
struct RegistryConfig {
  std::string host;            // as it stands in a ref: "127.0.0.1:5000", "docker.io"
  bool insecure_http = false;  // plain http; loopback has it unless ca_file is set
  std::string ca_file;         // PEM; the only authorities believed for this host
  std::string username;
  std::string password;          // with username; never logged
  bool allow_addresses = false;  // loopback, the host's own and link-local addresses too
  // Hosts beside its own (and its parent domain) whose token service may be given the credentials.
  // They share the registry's ca_file, allow_addresses and insecure_http.
  std::vector<std::string> token_hosts;
};

// Credentials for what lies below one host and, where it is set, one start of a repository's path.
// A RegistryConfig with a username wins over them; among them the longest prefix does.
struct RegistryCredential {
  std::string host;
  std::string repository_prefix;  // "team" covers team/app and not teams/app; "": everything
  std::string username;
  std::string password;
  std::string identity_token;  // in place of a password: the token service turns it into tokens
  std::string registry_token;  // in place of all: a bearer token for the registry itself
};

struct PullConfig {
  std::vector<RegistryConfig> registries;
  std::vector<RegistryCredential> credentials;
  // Registry host in a ref -> where it is fetched in its place: host[:port] or an http(s) URL,
  // which may have a path. Being in the configuration, such an endpoint is a listed host.
  std::map<std::string, std::string> mirrors;
  std::string tar_root;  // the folder for tar sources; "": none is allowed
  http::ProxyConfig proxy;
  std::string scratch_dir;  // compressed image archives are unpacked in it; "": they are refused
  uint64_t max_archive_bytes = uint64_t{64} << 30;  // of an image archive, unpacked

  // In all is more than two registries that drip could hold.
  uint32_t fetches_per_registry = 2;
  uint32_t fetches_in_all = 8;
  uint32_t max_tries = 5;  // in a row, each without at least 1 MiB gained
  absl::Duration first_backoff = absl::Milliseconds(500);
  absl::Duration retry_after_cap = absl::Seconds(60);
  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration small_request_timeout = absl::Seconds(60);  // manifests, configs, tokens
  uint32_t low_speed_bytes_per_s = 10 * 1024;
  absl::Duration low_speed_time = absl::Seconds(30);
};

// An image's own login. It is sent to `host` alone, and to token services bound to it.
struct RegistryLogin {
  std::string name;  // of the stored credential, for messages
  std::string host;
  std::string username;
  std::string password;
};

struct SourceSpec {
  // Exactly one of the two.
  std::string oci_ref;
  std::string tar_path;
  std::string tenant_id;
  std::string scope;  // tenant | partner | platform: bounds where tar_path may be
  // Which image of an OCI layout, by its name there; "": the only one, or the one named latest.
  std::string layout_name{};
  // Where it is there, no other credentials are used: neither the configuration's, nor none.
  std::optional<RegistryLogin> login{};
};

struct ResolvedLayer {
  oci::Digest digest;  // of the blob as it is stored and transferred
  uint64_t size_bytes = 0;
  oci::Compression compression = oci::Compression::kNone;
  oci::Digest diff_id;  // of the uncompressed tar
};

struct ResolvedImage {
  std::string repository;             // "docker.io/library/debian"; for a tar source its path
  oci::Digest manifest_digest;        // of the platform's manifest: what is pinned
  oci::Digest index_digest;           // of the index it was chosen from; empty where there was none
  std::vector<ResolvedLayer> layers;  // base first
  oci::ImageConfig config;
  std::string source;  // "registry" | "file"

  uint64_t CompressedBytes() const {
    uint64_t total = 0;
    for (const ResolvedLayer& layer : layers) total += layer.size_bytes;
    return total;
  }
};

// A layer as a file, ready for the bake. `path` stays valid while `hold` lives.
struct LayerFile {
  std::string path;
  oci::Digest digest;
  uint64_t size_bytes = 0;
  oci::Compression compression = oci::Compression::kNone;
  oci::Digest diff_id;
  std::shared_ptr<const void> hold;
};

// Bytes there so far and in all. Never two calls at once, at most about ten a second, from any
// thread; the last one has done == total where the fetch succeeds.
using PullProgress = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;

}  // namespace bunker::agent
