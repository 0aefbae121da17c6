#include "controller/policy/fanout.h"

#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

const Ownership kTenantA{Scope::kTenant, "tnt_a", "ptr_1"};
const Ownership kTenantB{Scope::kTenant, "tnt_b", "ptr_1"};
const Ownership kPartner1{Scope::kPartner, "", "ptr_1"};
const Ownership kPartner2{Scope::kPartner, "", "ptr_2"};
const Ownership kPlatform{Scope::kPlatform, "", ""};

TEST(Scopes, WhatReachesWhom) {
  struct {
    Ownership viewer, owner;
    bool reaches;
  } const kCases[] = {
      {kTenantA, kTenantA, true},   {kTenantA, kTenantB, false},   {kTenantA, kPartner1, true},
      {kTenantA, kPartner2, false}, {kTenantA, kPlatform, true},   {kPartner1, kTenantA, false},
      {kPartner1, kPartner1, true}, {kPartner1, kPlatform, true},  {kPlatform, kTenantA, false},
      {kPlatform, kPartner1, false}, {kPlatform, kPlatform, true},
  };
  for (const auto& one : kCases) EXPECT_EQ(Reaches(one.viewer, one.owner), one.reaches);
}

Worker MakeWorker(const std::string& id, Ownership owner, bool shared) {
  Worker worker;
  worker.id = id;
  worker.ownership = std::move(owner);
  worker.shared = shared;
  worker.facts.arch = Arch::kX86_64;
  worker.facts.capacity = {4000, 4096, 10'000};
  return worker;
}

class FanOutTest : public testing::Test {
 protected:
  std::map<std::string, SkipReason> Run() {
    std::vector<const Group*> pointers;
    for (const Group& group : groups) pointers.push_back(&group);
    std::map<std::string, const Worker*> by_id;
    for (const Worker& worker : workers) by_id[worker.id] = &worker;
    return FanOut(image, pointers, by_id);
  }
  using Wanted = std::map<std::string, SkipReason>;

  Image image;
  std::vector<Group> groups;
  std::vector<Worker> workers;
};

TEST_F(FanOutTest, PairsWhatGroupsHold) {
  image.id = "img_1";
  image.ownership = kTenantA;
  workers = {MakeWorker("w1", kPlatform, true), MakeWorker("w2", kPlatform, true),
             MakeWorker("w3", kPlatform, true), MakeWorker("private", kPlatform, false),
             MakeWorker("b", kTenantB, false), MakeWorker("a", kTenantA, false)};
  EXPECT_EQ(Run(), Wanted{});
  Group one;
  one.ownership = kTenantA;
  one.image_ids = {"img_1"};
  one.worker_ids = {"w1", "w2", "private", "b", "a", "deleted"};
  Group two = one;
  two.worker_ids = {"w2"};
  Group other = one;  // holds other images
  other.image_ids = {"img_2"};
  other.worker_ids = {"w3"};
  groups = {one, two, other};
  const Wanted wanted = {
      {"w1", SkipReason::kNone}, {"w2", SkipReason::kNone}, {"a", SkipReason::kNone}};
  EXPECT_EQ(Run(), wanted);
  image.active = false;
  EXPECT_EQ(Run(), Wanted{});
}

TEST_F(FanOutTest, ScopesBoundIt) {
  image.id = "img_1";
  image.ownership = kTenantA;
  workers = {MakeWorker("w1", kPlatform, true)};
  Group group;
  group.image_ids = {"img_1"};
  group.worker_ids = {"w1"};
  for (const auto& [owner, holds] : std::vector<std::pair<Ownership, bool>>{
           {kTenantA, true}, {kTenantB, false}, {kPartner1, false}, {kPlatform, false}}) {
    group.ownership = owner;
    groups = {group};
    EXPECT_EQ(Run().size(), holds ? 1u : 0u);
  }
  image.ownership = kPlatform;
  for (const Ownership& owner : {kTenantA, kPartner2, kPlatform}) {
    group.ownership = owner;
    groups = {group};
    EXPECT_EQ(Run().size(), 1u);
  }
}

TEST_F(FanOutTest, AutoImagesTakesItsOwnScopeAlone) {
  image.id = "img_1";
  image.ownership = kTenantA;
  workers = {MakeWorker("w1", kPlatform, true)};
  Group group;
  group.auto_images = true;
  group.ownership = kTenantA;
  group.worker_ids = {"w1"};
  groups = {group};
  EXPECT_EQ(Run().size(), 1u);
  image.ownership = kPlatform;
  EXPECT_EQ(Run().size(), 0u);
}

TEST_F(FanOutTest, SkipsWhatCanBeOfNoUse) {
  image.id = "img_1";
  image.ownership = kTenantA;
  image.arch = Arch::kAarch64;
  workers = {MakeWorker("w1", kPlatform, true)};
  Group group;
  group.ownership = kTenantA;
  group.image_ids = {"img_1"};
  group.worker_ids = {"w1"};
  groups = {group};
  EXPECT_EQ(Run().at("w1"), SkipReason::kWrongArch);
  image.arch = Arch::kX86_64;
  image.size_mib = 1 << 20;  // a cap is not a size
  EXPECT_EQ(Run().at("w1"), SkipReason::kNone);
  image.allocated_bytes = uint64_t{20'000} << 20;
  EXPECT_EQ(Run().at("w1"), SkipReason::kTooLarge);
}

}  // namespace
}  // namespace bunker::controller
