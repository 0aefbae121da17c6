#include "controller/policy/quota.h"

#include <functional>
#include <vector>

#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

const QuotaUsage kOne = {1, 0, 500, 256, 1024, 0};

TEST(Quota, EachCapIsHeldAndNamed) {
  struct {
    const char* name;
    std::function<void(QuotaCaps&)> set;
  } const kCases[] = {
      {"max_concurrent_bunkers", [](QuotaCaps& c) { c.max_concurrent_bunkers = 4; }},
      {"max_cpu_millicores", [](QuotaCaps& c) { c.max_cpu_millicores = 2400; }},
      {"max_memory_mb", [](QuotaCaps& c) { c.max_memory_mb = 1279; }},
      {"max_disk_mb", [](QuotaCaps& c) { c.max_disk_mb = 5119; }},
      {"per_bunker_max_cpu", [](QuotaCaps& c) { c.per_bunker_max_cpu = 499; }},
      {"per_bunker_max_memory", [](QuotaCaps& c) { c.per_bunker_max_memory = 255; }},
      {"per_bunker_max_disk", [](QuotaCaps& c) { c.per_bunker_max_disk = 1023; }},
  };
  for (const auto& one : kCases) {
    QuotaCaps caps;
    one.set(caps);
    const auto breach = BreachOf(caps, kOne.Times(3), kOne, 2);
    ASSERT_TRUE(breach.has_value()) << one.name;
    EXPECT_EQ(breach->cap_name, one.name);
  }
}

TEST(Quota, WhatJustFitsFitsAndWhatAsksForNothingIsNotRefused) {
  QuotaCaps caps;
  caps.max_concurrent_bunkers = 5;
  caps.max_cpu_millicores = 2500;
  caps.max_memory_mb = 5 * 256;
  caps.max_disk_mb = 5 * 1024;
  caps.max_persistent_bunkers = 0;
  caps.max_gpu_count = 0;
  caps.per_bunker_max_cpu = 500;
  EXPECT_FALSE(BreachOf(caps, kOne.Times(3), kOne, 2));
  EXPECT_FALSE(BreachOf({}, kOne.Times(1000), kOne, 100));
  QuotaUsage persistent = kOne;
  persistent.persistent = 1;
  EXPECT_EQ(BreachOf(caps, {}, persistent, 1)->cap_name, "max_persistent_bunkers");
  QuotaUsage gpu = kOne;
  gpu.gpus = 1;
  EXPECT_EQ(BreachOf(caps, {}, gpu, 1)->cap_name, "max_gpu_count");
}

TEST(Quota, BunkersCountUntilTheyAreFinalAndStoppedOnesForTheirDisk) {
  Bunker row;
  row.status = BunkerStatus::kRunning;
  row.cpu_millicores = 500;
  row.memory_mb = 256;
  row.disk_mb = 1024;
  EXPECT_EQ(CountOf(row), kOne);  // without what placement adds
  row.status = BunkerStatus::kStopping;
  EXPECT_EQ(CountOf(row), kOne);
  row.lifecycle_mode = LifecycleMode::kPersistent;
  EXPECT_EQ(CountOf(row).persistent, 1u);
  row.status = BunkerStatus::kStopped;
  EXPECT_EQ(CountOf(row).memory_mb, 256u);  // its VM may be there yet
  row.halted = true;
  EXPECT_EQ(CountOf(row), (QuotaUsage{0, 0, 0, 0, 1024, 0}));
  row.terminated_at = absl::UnixEpoch();
  EXPECT_EQ(CountOf(row), QuotaUsage{});
}

TEST(QuotaIndex, NestedGroupsCountEachUserOnce) {
  QuotaIndex index;
  index.SetParent("inner", "outer");
  index.SetParent("other", "outer");
  index.SetMember("inner", "ann", true);
  index.SetMember("other", "ann", true);
  index.SetMember("outer", "bob", true);
  index.Add("ann", kOne);
  index.Add("bob", kOne.Times(2));
  EXPECT_EQ(index.OfUser("ann"), kOne);
  EXPECT_EQ(index.OfGroup("inner"), kOne);
  EXPECT_EQ(index.OfGroup("outer"), kOne.Times(2));
  EXPECT_EQ(index.OfTree("outer"), kOne.Times(3));
  index.SetMember("inner", "ann", false);
  EXPECT_EQ(index.OfTree("outer"), kOne.Times(3));  // still through the other one
  index.SetParent("other", "");
  EXPECT_EQ(index.OfTree("outer"), kOne.Times(2));
  EXPECT_EQ(index.OfTree("other"), kOne);
  index.Subtract("ann", kOne);
  EXPECT_EQ(index.OfTree("other"), QuotaUsage{});
}

// Any order of changes gives the sums that adding everything up gives.
TEST(QuotaIndexProperty, SumsNeverDrift) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SeededRng rng(seed);
    constexpr size_t kUsers = 6;
    constexpr size_t kGroups = 6;
    QuotaIndex index;
    std::map<std::string, std::vector<QuotaUsage>> bunkers;
    std::set<std::pair<std::string, std::string>> members;
    std::map<std::string, std::string> parents;
    const auto user = [&] { return "u" + std::to_string(rng.Below(kUsers)); };
    for (int step = 0; step < 300; ++step) {
      switch (rng.Below(4)) {
        case 0: {
          const QuotaUsage usage = {1, rng.Below(2), rng.Below(900), rng.Below(900), 64, 0};
          const std::string who = user();
          bunkers[who].push_back(usage);
          index.Add(who, usage);
          break;
        }
        case 1: {
          const std::string who = user();
          if (bunkers[who].empty()) break;
          index.Subtract(who, bunkers[who].back());
          bunkers[who].pop_back();
          break;
        }
        case 2: {
          const std::string group = "g" + std::to_string(rng.Below(kGroups));
          const std::string who = user();
          const bool in = rng.Below(2) == 0;
          index.SetMember(group, who, in);
          if (in) {
            members.insert({group, who});
          } else {
            members.erase({group, who});
          }
          break;
        }
        case 3: {
          // Only ever into a group of a higher number, so that there are no cycles.
          const size_t child = rng.Below(kGroups - 1);
          const size_t parent = child + 1 + rng.Below(kGroups - child - 1);
          const std::string id = "g" + std::to_string(child);
          parents[id] = rng.Below(3) == 0 ? "" : "g" + std::to_string(parent);
          index.SetParent(id, parents[id]);
          break;
        }
      }
    }
    for (size_t g = 0; g < kGroups; ++g) {
      const std::string group = "g" + std::to_string(g);
      std::set<std::string> own;
      std::set<std::string> below;
      for (const auto& [of, who] : members) {
        if (of == group) own.insert(who);
        for (std::string at = of; !at.empty(); at = parents[at]) {
          if (at == group) below.insert(who);
        }
      }
      const auto sum = [&](const std::set<std::string>& users) {
        QuotaUsage total;
        for (const std::string& who : users) {
          for (const QuotaUsage& one : bunkers[who]) total += one;
        }
        return total;
      };
      ASSERT_EQ(index.OfGroup(group), sum(own));
      ASSERT_EQ(index.OfTree(group), sum(below));
    }
  }
}

}  // namespace
}  // namespace bunker::controller
