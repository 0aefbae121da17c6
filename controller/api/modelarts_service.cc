// ModelArts Image Management as an adapter: its requests become registrations, its rows are made of
// image rows. Nothing else in the controller knows of it but the few fields that an image keeps.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bunker/v1/modelarts.pb.h"
#include "common/base/id.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/oci/reference.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/enum_json.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/accounts.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxSlugBytes = 110;  // leaves room for a suffix
constexpr uint32_t kDefaultPageSize = 50;
constexpr char kDefaultWorkspace[] = "0";

// A project is a tenant. Whoever may see it acts in it as its administrator at most, so that what
// other tenants have stays out of the project; one that may not be seen looks like one that isn't
// there.
absl::StatusOr<Caller> ActingIn(const CallContext& context, const std::string& project_id) {
  const auto tenant = context.engine.accounts().FindTenant(context.caller, project_id);
  if (!tenant.ok()) {
    return ApiError("NOT_FOUND", "there is no project " + project_id.substr(0, 64) +
                                     "; use the id of your tenant, as GET /v1/whoami says it");
  }
  Caller acting = context.caller;
  acting.tenant_id = (*tenant)->id;
  acting.partner_id = (*tenant)->partner_id;
  acting.role = std::min(acting.role, Role::kTenantAdmin);
  return acting;
}

// "library/pytorch_1_8" → what is before the last component, and that.
struct PathParts {
  std::string name_space;
  std::string name;
  std::string tag;
};

PathParts PartsOf(const oci::Reference& reference) {
  PathParts parts;
  const size_t slash = reference.repository.rfind('/');
  parts.name =
      slash == std::string::npos ? reference.repository : reference.repository.substr(slash + 1);
  if (slash != std::string::npos) parts.name_space = reference.repository.substr(0, slash);
  parts.tag = reference.tag;
  return parts;
}

bool IsLowerAlnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

// "<name>-<tag>" as far as a name may hold it.
std::string NameFor(const oci::Reference& reference) {
  const PathParts parts = PartsOf(reference);
  const std::string text = parts.tag.empty() ? parts.name : parts.name + "-" + parts.tag;
  std::string slug;
  for (char c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    slug += IsLowerAlnum(c) || c == '.' || c == '_' || c == '-' ? c : '-';
  }
  slug.resize(std::min(slug.size(), kMaxSlugBytes));
  while (!slug.empty() && !IsLowerAlnum(slug.back())) slug.pop_back();
  while (!slug.empty() && !IsLowerAlnum(slug.front())) slug.erase(0, 1);
  return slug.empty() || HasIdPrefix(slug) ? "image-" + slug : slug;
}

// The rows of other origins have no fields of the adapter's: its defaults stand for them.
ModelArtsFields FieldsOf(const Image& image) {
  if (image.modelarts) return *image.modelarts;
  ModelArtsFields fields;
  fields.swr_path = image.build_source.ref;
  return fields;
}

void SetStatus(CallContext& context, const Image& image, v1::ModelArtsImage* out) {
  if (!image.active) return out->set_status(v1::MODEL_ARTS_STATUS_DELETED);
  if (image.resolved) return out->set_status(v1::MODEL_ARTS_STATUS_ACTIVE);
  out->set_status(v1::MODEL_ARTS_STATUS_INIT);
  const auto rows = context.engine.ListCache(OperatorCaller(), image.id);
  if (!rows.ok()) return;
  for (const CacheView& view : *rows) {
    if (view.entry->status != CacheStatus::kFailed) continue;
    out->set_status(v1::MODEL_ARTS_STATUS_ERROR);
    // Why is for those whose image it is.
    if (context.engine.MaySee(context.caller, image.ownership))
      out->set_status_message(view.entry->error_code + ": " + view.entry->error_message);
    return;
  }
}

v1::ModelArtsImage RowOf(CallContext& context, const Image& image) {
  const ModelArtsFields fields = FieldsOf(image);
  v1::ModelArtsImage row;
  row.set_arch(image.arch == Arch::kUnspecified ? v1::ARCH_X86_64 : ToProto<v1::Arch>(image.arch));
  row.set_create_at(static_cast<uint64_t>(absl::ToUnixMillis(image.created_at)));
  row.set_update_at(static_cast<uint64_t>(absl::ToUnixMillis(image.updated_at)));
  row.set_description(image.description);
  for (const std::string& service : fields.services)
    row.add_dev_services(ToProtoByName<v1::DevService>(service));
  row.set_id(UuidOf(image.id));
  if (const auto reference = oci::ParseReference(fields.swr_path); reference.ok()) {
    const PathParts parts = PartsOf(*reference);
    row.set_name(parts.name);
    row.set_namespace_(parts.name_space);
    row.set_tag(parts.tag);
  }
  row.set_origin(ToProto<v1::Origin>(image.origin));
  for (const std::string& category : image.resource_category) {
    row.add_resource_categories(ToProtoByName<v1::ModelArtsResource>(category));
    row.add_support_res_categories(ToProtoByName<v1::ModelArtsResource>(category));
  }
  row.set_service_type(ToProtoByName<v1::ServiceType>(fields.service_type));
  row.set_size((image.size_in_bytes() + 1023) / 1024);
  SetStatus(context, image, &row);
  row.set_swr_path(fields.swr_path);
  row.set_type(image.ownership.scope == Scope::kPlatform ? v1::MODEL_ARTS_TYPE_BUILD_IN
                                                         : v1::MODEL_ARTS_TYPE_DEDICATED);
  row.set_visibility(ToProtoByName<v1::Visibility>(fields.visibility));
  row.set_workspace_id(fields.workspace_id);
  return row;
}

// The wire's words of a list, each once; `defaults` where it is empty.
template <typename List>
std::vector<std::string> WordsOf(const List& values, const google::protobuf::EnumDescriptor* type,
                                 std::vector<std::string> defaults) {
  std::vector<std::string> words;
  for (const int value : values) {
    const std::string word = EnumJsonName(type->FindValueByNumber(value));
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  }
  return words.empty() ? defaults : words;
}

RegisterImageSpec SpecOf(const v1::RegisterModelArtsImageRequest& request,
                         const oci::Reference& reference, uint32_t size_mib) {
  RegisterImageSpec spec;
  spec.name = NameFor(reference);
  spec.display_name = PartsOf(reference).name;
  spec.description = request.description();
  spec.build_source.kind = SourceKind::kOci;
  spec.build_source.ref = request.swr_path();
  spec.size_mib = size_mib;
  spec.arch = ToModel<Arch>(request.arch()).value_or(Arch::kX86_64);
  spec.resource_category =
      WordsOf(request.resource_category(), v1::ModelArtsResource_descriptor(), {"CPU", "GPU"});
  ModelArtsFields fields;
  fields.swr_path = request.swr_path();
  fields.canonical_path = reference.ToString();
  if (request.service_type() != v1::SERVICE_TYPE_UNSPECIFIED)
    fields.service_type =
        EnumJsonName(v1::ServiceType_descriptor()->FindValueByNumber(request.service_type()));
  fields.services = WordsOf(request.services(), v1::DevService_descriptor(), fields.services);
  if (request.visibility() == v1::VISIBILITY_PUBLIC) fields.visibility = "PUBLIC";
  fields.workspace_id = request.workspace_id().empty() ? kDefaultWorkspace : request.workspace_id();
  spec.modelarts = std::move(fields);
  return spec;
}

absl::StatusOr<v1::ModelArtsImage> Register(CallContext& context,
                                            const v1::RegisterModelArtsImageRequest& request,
                                            uint32_t size_mib) {
  ASSIGN_OR_RETURN(const Caller acting, ActingIn(context, request.project_id()));
  const auto reference = oci::ParseReference(request.swr_path());
  if (!reference.ok())
    return ValidationError("swr_path", std::string(reference.status().message()));
  RegisterImageSpec spec = SpecOf(request, *reference, size_mib);
  auto image = context.engine.RegisterImage(context.turn, acting, spec);
  if (!image.ok() && ReasonOf(image.status()) == "SLUG_CONFLICT" &&
      !context.engine.FindBySwrPath(acting, spec.modelarts->canonical_path)) {
    // Another path has that name: this one's own digest tells them apart.
    spec.name += "-" + Sha256Hex(spec.modelarts->canonical_path).substr(0, 12);
    image = context.engine.RegisterImage(context.turn, acting, spec);
  }
  RETURN_IF_ERROR(image.status());
  return RowOf(context, **image);
}

absl::StatusOr<v1::ModelArtsImage> Get(CallContext& context,
                                       const v1::GetModelArtsImageRequest& request) {
  ASSIGN_OR_RETURN(const Caller acting, ActingIn(context, request.project_id()));
  const std::string id = IdFromUuid("img_", request.id());
  const RowPtr<Image> image =
      context.engine.FindImageById(acting, id.empty() ? request.id() : id);
  const bool is_oci = image != nullptr && image->build_source.kind == SourceKind::kOci;
  if (!is_oci) {
    return ApiError("NOT_FOUND", "there is no image " + request.id().substr(0, 64) +
                                     "; list the project's images for their ids");
  }
  return RowOf(context, *image);
}

absl::StatusOr<v1::ModelArtsImagePage> List(CallContext& context,
                                            const v1::ListModelArtsImagesRequest& request) {
  ASSIGN_OR_RETURN(const Caller acting, ActingIn(context, request.project_id()));
  PageSpec all;
  all.limit = UINT32_MAX;
  const uint32_t limit = request.has_limit() ? request.limit() : kDefaultPageSize;
  const uint32_t offset = request.offset();
  v1::ModelArtsImagePage page;
  uint32_t total = 0;
  for (const RowPtr<Image>& image : context.engine.ListImages(acting, {}, all).rows) {
    if (image->build_source.kind != SourceKind::kOci) continue;
    const auto reference = oci::ParseReference(FieldsOf(*image).swr_path);
    const PathParts parts = reference.ok() ? PartsOf(*reference) : PathParts();
    if (request.has_name() && parts.name != request.name()) continue;
    if (request.has_namespace_() && parts.name_space != request.namespace_()) continue;
    if (total >= offset && total - offset < limit) *page.add_data() = RowOf(context, *image);
    ++total;
  }
  page.set_total(total);
  page.set_size(limit);
  page.set_pages((total + limit - 1) / limit);
  page.set_current(offset / limit);
  return page;
}

}  // namespace

void RegisterModelArtsService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const uint32_t size_mib = deps.modelarts_size_mib;
  dispatcher->For("bunker.v1.ModelArtsImages.RegisterModelArtsImage")
      .Register<v1::RegisterModelArtsImageRequest, v1::ModelArtsImage>(
          [size_mib](CallContext& context, const v1::RegisterModelArtsImageRequest& request) {
            return Register(context, request, size_mib);
          });
  dispatcher->For("bunker.v1.ModelArtsImages.ListModelArtsImages")
      .Register<v1::ListModelArtsImagesRequest, v1::ModelArtsImagePage>(List);
  dispatcher->For("bunker.v1.ModelArtsImages.GetModelArtsImage")
      .Register<v1::GetModelArtsImageRequest, v1::ModelArtsImage>(Get);
}

}  // namespace bunker::controller
