#include "agent/cache/image_store.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;

class ImageStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/image-store-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern), nullptr);
    folder_ = pattern;
    Reopen();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Reopen() {
    auto store = ImageStore::Open(folder_ + "/images");
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  BakedImage Bake(const std::string& recipe) {
    auto lease = store_->Acquire(recipe, cancel_);
    EXPECT_TRUE(lease.ok()) << lease.status();
    std::ofstream((*lease)->temporary_rootfs_path()) << "content";
    const BakedImage image{recipe, "fsverity-sha256:x", 7, 4096, {"sha256:b"}};
    EXPECT_TRUE(store_->Publish(**lease, image).ok());
    return image;
  }

  std::string folder_;
  std::unique_ptr<ImageStore> store_;
  CancelToken cancel_;
  const std::string recipe_ = std::string(64, 'a');
};

TEST_F(ImageStoreTest, APublishedImageSurvivesReopening) {
  Bake(recipe_);
  Reopen();
  const auto found = store_->Find(recipe_);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->rootfs_digest, "fsverity-sha256:x");
  EXPECT_EQ(found->blobs, std::vector<std::string>{"sha256:b"});
}

TEST_F(ImageStoreTest, WhatWasNotPublishedIsInvisibleAndSwept) {
  {
    auto lease = store_->Acquire(recipe_, cancel_);
    ASSERT_TRUE(lease.ok());
    std::ofstream((*lease)->temporary_rootfs_path()) << "half";
    EXPECT_FALSE(store_->Find(recipe_).has_value());
    // A crash here: the folder is left behind for the next Open.
    fs::copy(fs::path((*lease)->temporary_rootfs_path()).parent_path(),
             folder_ + "/images/.baking-99", fs::copy_options::recursive);
  }
  Reopen();
  EXPECT_TRUE(fs::is_empty(folder_ + "/images"));
}

TEST_F(ImageStoreTest, AFileOfAnotherSizeIsDropped) {
  Bake(recipe_);
  std::ofstream(store_->RootfsPath(recipe_)) << "truncate";
  Reopen();
  EXPECT_FALSE(store_->Find(recipe_).has_value());
}

TEST_F(ImageStoreTest, APinnedImageStays) {
  Bake(recipe_);
  store_->Pin(recipe_);
  EXPECT_EQ(store_->Retire(recipe_).status().code(), absl::StatusCode::kFailedPrecondition);
  store_->Unpin(recipe_);
  const auto retired = store_->Retire(recipe_);
  ASSERT_TRUE(retired.ok()) << retired.status();
  EXPECT_FALSE(fs::exists(store_->RootfsPath(recipe_)));
  EXPECT_EQ(store_->Retire(recipe_).value(), "") << "removal is repeatable";
  store_->DeleteRetired(*retired);
  EXPECT_TRUE(fs::is_empty(folder_ + "/images"));
}

TEST_F(ImageStoreTest, OneBakeAtATimePerRecipe) {
  auto first = store_->Acquire(recipe_, cancel_);
  ASSERT_TRUE(first.ok());
  CancelToken impatient;
  impatient.Cancel();
  EXPECT_EQ(store_->Acquire(recipe_, impatient).status().code(), absl::StatusCode::kCancelled);
  std::thread second([&] {
    auto lease = store_->Acquire(recipe_, cancel_);
    EXPECT_TRUE(lease.ok()) << lease.status();
  });
  first->reset();
  second.join();
}

}  // namespace
}  // namespace bunker::agent
