// Internal to agent/pull: what all pulls of one agent share.
// Thread-safe as its parts are.
#pragma once

#include <utility>

#include "agent/pull/document_cache.h"
#include "agent/pull/fetch_limiter.h"
#include "agent/pull/host_table.h"
#include "agent/pull/pull_types.h"
#include "common/http/http_client.h"

namespace bunker::agent {

struct PullContext {
  PullContext(PullConfig c, HostTable h)
      : config(std::move(c)),
        hosts(std::move(h)),
        client({.policy = [this](const http::Url& url) { return hosts.PolicyOf(url); },
                .proxy = config.proxy,
                .user_agent = "bunker-agent"}),
        limiter(config.fetches_per_registry, config.fetches_in_all) {}

  const PullConfig config;
  const HostTable hosts;
  http::Client client;
  FetchLimiter limiter;
  DocumentCache documents;
};

}  // namespace bunker::agent
