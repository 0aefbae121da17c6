#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_split.h"
#include "bunker/v1/image.pb.h"
#include "common/base/id.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/image_ref.h"

namespace bunker::controller {
namespace {

constexpr char kImages[] = "images";
constexpr char kCache[] = "cache";
constexpr size_t kMaxUuids = 200;
constexpr size_t kCategoryPrefix = std::string_view("RESOURCE_CATEGORY_").size();

v1::Image Row(CallContext& context, const Image& image) {
  v1::Image row;
  ToMessage(image, context.engine.CacheSummaryOf(context.caller, image.id), &row);
  return row;
}

RegisterImageSpec SpecOf(const v1::RegisterImageRequest& request) {
  RegisterImageSpec spec;
  spec.name = request.name();
  spec.display_name = request.display_name();
  spec.description = request.description();
  spec.build_source.kind = *ToModel<SourceKind>(request.build_source().kind());
  spec.build_source.ref = request.build_source().ref();
  spec.build_source.path = request.build_source().path();
  spec.size_mib = request.size_mib();
  if (request.has_default_cpu_millicores())
    spec.default_cpu_millicores = request.default_cpu_millicores();
  if (request.has_default_memory_mb()) spec.default_memory_mb = request.default_memory_mb();
  if (request.has_default_disk_mb())
    spec.default_disk_mb = static_cast<uint32_t>(request.default_disk_mb());
  spec.scope = ToModel<Scope>(request.scope()).value_or(Scope::kTenant);
  spec.lazy_pull = request.lazy_pull();
  spec.preinstalled.assign(request.preinstalled().begin(), request.preinstalled().end());
  spec.arch = ToModel<Arch>(request.arch()).value_or(Arch::kUnspecified);
  if (request.resource_category_size() > 0) spec.resource_category.clear();
  for (const int category : request.resource_category()) {
    if (category == 0) continue;
    spec.resource_category.push_back(v1::ResourceCategory_Name(category).substr(kCategoryPrefix));
  }
  spec.pull_secret = request.pull_secret();
  return spec;
}

// What a change names: the mask's fields, or where there is none (gRPC), those that are set.
UpdateImageSpec SpecOf(const v1::UpdateImageRequest& request) {
  const auto given = [&](const char* name, bool set) {
    const auto& paths = request.update_mask().paths();
    return paths.empty() ? set : std::find(paths.begin(), paths.end(), name) != paths.end();
  };
  UpdateImageSpec spec;
  if (given("display_name", request.has_display_name())) spec.display_name = request.display_name();
  if (given("description", request.has_description())) spec.description = request.description();
  if (given("default_cpu_millicores", request.has_default_cpu_millicores()))
    spec.default_cpu_millicores = request.default_cpu_millicores();
  if (given("default_memory_mb", request.has_default_memory_mb()))
    spec.default_memory_mb = request.default_memory_mb();
  if (given("default_disk_mb", request.has_default_disk_mb()))
    spec.default_disk_mb = static_cast<uint32_t>(request.default_disk_mb());
  if (given("lazy_pull", request.has_lazy_pull())) spec.lazy_pull = request.lazy_pull();
  if (given("preinstalled", request.preinstalled_size() > 0))
    spec.preinstalled.emplace(request.preinstalled().begin(), request.preinstalled().end());
  if (given("pull_secret", request.has_pull_secret())) spec.pull_secret = request.pull_secret();
  return spec;
}

absl::StatusOr<v1::Image> RegisterImage(CallContext& context,
                                        const v1::RegisterImageRequest& request) {
  RETURN_IF_ERROR(ValidateRegisterImage(request));
  const RegisterImageSpec spec = SpecOf(request);
  if (spec.scope == Scope::kTenant && context.caller.tenant_id.empty())
    return ValidationError("scope", "the operator has no tenant; use platform, or a tenant's key");
  RETURN_IF_ERROR(CheckScope(context, spec.scope, "image"));
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.RegisterImage(context.turn, context.caller, spec));
  v1::Image row = Row(context, *image);
  ToMessage(context.engine.WarmOf(image->id), row.mutable_warm());
  return row;
}

absl::StatusOr<v1::Image> UpdateImage(CallContext& context, const v1::UpdateImageRequest& request) {
  RETURN_IF_ERROR(ValidateUpdateImage(request));
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  RETURN_IF_ERROR(CheckMayChange(context, image->ownership, "image"));
  ASSIGN_OR_RETURN(
      const RowPtr<Image> after,
      context.engine.UpdateImage(context.turn, context.caller, image->id, SpecOf(request)));
  return Row(context, *after);
}

absl::Status ReadUuids(const std::string& list, std::set<std::string>* ids) {
  const std::vector<std::string> items = absl::StrSplit(list, ',');
  if (items.size() > kMaxUuids)
    return ValidationError("uuid", "holds more than 200 entries; ask for them in parts");
  for (const std::string& item : items) {
    const std::string_view bare = std::string_view(item).substr(item.rfind("img_", 0) == 0 ? 4 : 0);
    const std::string id = IdFromUuid("img_", bare);
    if (id.empty())
      return ValidationError("uuid", "must be UUIDs or ids of images, with commas between them");
    ids->insert(id);
  }
  return absl::OkStatus();
}

absl::StatusOr<ImageFilter> FilterOf(const v1::ListImagesRequest& request) {
  ImageFilter filter;
  filter.name = request.name();
  filter.scope = ToModel<Scope>(request.scope());
  if (request.has_active()) filter.active = request.active();
  filter.scan_status = ToModel<ScanStatus>(request.scan_status());
  if (request.has_uuid()) RETURN_IF_ERROR(ReadUuids(request.uuid(), &filter.uuids));
  if (request.has_digest() && !IsDigestPrefix(request.digest()))
    return ValidationError("digest", "must be sha256: and 12 to 64 of the digits 0-9 and a-f");
  filter.digest = request.digest();
  filter.tag = request.tag();
  return filter;
}

absl::StatusOr<v1::ListImagesResponse> ListImages(const Cursors& cursors, CallContext& context,
                                                  const v1::ListImagesRequest& request) {
  ASSIGN_OR_RETURN(const ImageFilter filter, FilterOf(request));
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(context.caller.tenant_id, kImages, request));
  const Page<Image> found = context.engine.ListImages(context.caller, filter, page);
  v1::ListImagesResponse response;
  for (const RowPtr<Image>& image : found.rows) *response.add_images() = Row(context, *image);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kImages, found.rows.back()->id));
  return response;
}

// The rows come by worker name, which is what the cursor holds.
absl::StatusOr<v1::GetImageCacheResponse> GetImageCache(const Cursors& cursors,
                                                        CallContext& context,
                                                        const v1::GetImageCacheRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  const std::string list = std::string(kCache) + "/" + image->id;
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(context.caller.tenant_id, list, request));
  ASSIGN_OR_RETURN(const std::vector<CacheView> rows,
                   context.engine.ListCache(context.caller, image->id));
  v1::GetImageCacheResponse response;
  response.set_has_more(false);
  for (const CacheView& view : rows) {
    if (view.worker_name <= page.after_id) continue;
    if (response.rows_size() == static_cast<int>(page.limit)) {
      response.set_has_more(true);
      response.set_next_cursor(cursors.Make(context.caller.tenant_id, list,
                                            response.rows(response.rows_size() - 1).worker_name()));
      break;
    }
    ToMessage(view, response.add_rows());
  }
  return response;
}

absl::StatusOr<v1::WarmSummary> WarmImage(CallContext& context,
                                          const v1::WarmImageRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  RETURN_IF_ERROR(CheckMayChange(context, image->ownership, "image"));
  ASSIGN_OR_RETURN(const WarmSummary warm,
                   context.engine.Warm(context.turn, context.caller, image->id));
  v1::WarmSummary response;
  ToMessage(warm, &response);
  return response;
}

absl::StatusOr<v1::Image> DeactivateImage(CallContext& context,
                                          const v1::DeactivateImageRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  RETURN_IF_ERROR(CheckMayChange(context, image->ownership, "image"));
  ASSIGN_OR_RETURN(const RowPtr<Image> after,
                   context.engine.Deactivate(context.turn, context.caller, image->id));
  return Row(context, *after);
}

}  // namespace

void RegisterImageService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  dispatcher->For("bunker.v1.Images.RegisterImage")
      .Register<v1::RegisterImageRequest, v1::Image>(RegisterImage);
  dispatcher->For("bunker.v1.Images.UpdateImage")
      .Register<v1::UpdateImageRequest, v1::Image>(UpdateImage);
  dispatcher->For("bunker.v1.Images.ListImages")
      .Register<v1::ListImagesRequest, v1::ListImagesResponse>(
          [cursors](CallContext& context, const v1::ListImagesRequest& request) {
            return ListImages(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.Images.GetImage")
      .Register<v1::GetImageRequest, v1::Image>(
          [](CallContext& context,
             const v1::GetImageRequest& request) -> absl::StatusOr<v1::Image> {
            ASSIGN_OR_RETURN(const RowPtr<Image> image,
                             context.engine.FindImage(context.caller, request.image()));
            return Row(context, *image);
          });
  dispatcher->For("bunker.v1.Images.GetImageCache")
      .Register<v1::GetImageCacheRequest, v1::GetImageCacheResponse>(
          [cursors](CallContext& context, const v1::GetImageCacheRequest& request) {
            return GetImageCache(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.Images.WatchImageCache").RegisterStream();
  dispatcher->For("bunker.v1.Images.WarmImage")
      .Register<v1::WarmImageRequest, v1::WarmSummary>(WarmImage);
  dispatcher->For("bunker.v1.Images.DeactivateImage")
      .Register<v1::DeactivateImageRequest, v1::Image>(DeactivateImage);
}

}  // namespace bunker::controller
