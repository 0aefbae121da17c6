// Scans: what is in an image, what is wrong with it, and who has a package.
#include <memory>
#include <string>
#include <utility>

#include "bunker/v1/scan.pb.h"
#include "common/base/status_macros.h"
#include "common/sbom/cyclonedx.h"
#include "common/sbom/ecosystem.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/scans.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxQueryBytes = 512;

using Output = ScanWork::Output;

absl::Status NoScans() {
  return ApiError("UNAVAILABLE", "this controller keeps no scans; ask the operator");
}

absl::Status NotScanned(const Image& image) {
  const std::string last =
      image.scan_summary.empty() ? "" : " (the last one: " + image.scan_summary + ")";
  return ApiError("NOT_FOUND", "no scan of the image " + image.name + " could read it yet" + last +
                                   ": POST its /scan, and wait until scanned_at changes");
}

absl::StatusOr<v1::Image> ScanImage(CallContext& context, const v1::ScanImageRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  RETURN_IF_ERROR(CheckMayChange(context, image->ownership, "image"));
  ASSIGN_OR_RETURN(const RowPtr<Image> after,
                   context.engine.scans().Request(context.turn, context.caller, image->id));
  v1::Image row;
  ToMessage(*after, context.engine.CacheSummaryOf(context.caller, after->id), &row);
  return row;
}

// The image and what its last scan brought; errors go to `finish`.
template <typename Resp>
void WithOutput(
    ScanWork* scans, CallContext& context, const std::string& ref,
    const Dispatcher::Finish<Resp>& finish,
    std::function<absl::StatusOr<Resp>(const Image&, const scan::v1::ScanOutput&)> use) {
  const auto image = context.engine.FindImage(context.caller, ref);
  absl::Status status = image.status();
  if (status.ok()) {
    const RowPtr<ScanReport> report = context.engine.scans().ReportOf((*image)->id);
    if (report == nullptr || !report->has_document) status = NotScanned(**image);
  }
  if (status.ok() && scans == nullptr) status = NoScans();
  if (!status.ok()) {
    context.turn.AfterCommit([finish, status](const absl::Status&) { finish(status); });
    return;
  }
  context.turn.AfterCommit([scans, finish, use, row = *image](const absl::Status& committed) {
    if (!committed.ok()) return finish(committed);
    scans->ReadOutput(row->id, [finish, use, row](absl::StatusOr<Output> output) {
      if (absl::IsNotFound(output.status())) return finish(NotScanned(*row));
      if (!output.ok()) return finish(output.status());
      finish(use(*row, **output));
    });
  });
}

absl::StatusOr<v1::Sbom> SbomOf(const Image& image, const scan::v1::ScanOutput& output) {
  SbomSubject subject;
  subject.name = image.name;
  if (image.resolved) subject.version = image.resolved->manifest_digest;
  subject.made_at = image.scanned_at.value_or(image.created_at);
  v1::Sbom sbom;
  sbom.set_document(CycloneDxOf(subject, output.inventory()));
  return sbom;
}

void ToMessage(const scan::v1::Distribution& distribution, const scan::v1::Finding& finding,
               v1::Vulnerability* out) {
  const scan::v1::Package& package = finding.package();
  out->set_id(finding.id());
  *out->mutable_aliases() = finding.aliases();
  out->set_severity(ToProtoByName<v1::Severity>(finding.severity()));
  if (finding.score() > 0) out->set_score(finding.score());
  out->set_package(package.name());
  out->set_version(package.version());
  out->set_ecosystem(EcosystemOf(distribution, package.kind()));
  if (!package.source_name().empty()) out->set_source_name(package.source_name());
  if (!finding.fixed_version().empty()) out->set_fixed_version(finding.fixed_version());
  out->set_purl(PurlOf(distribution, package));
  if (!finding.summary().empty()) out->set_summary(finding.summary());
}

// A page of what has a sort key: rows at and before `after` are left out. `Response` is a list.
template <typename Response, typename Add>
void FillPage(const PageSpec& page, size_t count, const std::function<std::string(size_t)>& key_of,
              const std::function<std::string(const std::string&)>& cursor_of, Add add,
              Response* response) {
  uint32_t taken = 0;
  std::string last;
  response->set_has_more(false);
  for (size_t i = 0; i < count; ++i) {
    const std::string key = key_of(i);
    if (!page.after_id.empty() && key <= page.after_id) continue;
    if (taken == page.limit) {
      response->set_has_more(true);
      response->set_next_cursor(cursor_of(last));
      return;
    }
    if (!add(i)) continue;
    ++taken;
    last = key;
  }
}

// In the order in which findings are kept: the worst first.
std::string KeyOf(const scan::v1::Finding& finding) {
  constexpr const char* kOrder[] = {"critical", "high", "medium", "low", "none", "unknown"};
  int rank = 0;
  while (rank < 5 && finding.severity() != kOrder[rank]) ++rank;
  const scan::v1::Package& package = finding.package();
  return std::to_string(rank) + "\n" + finding.id() + "\n" + package.name() + "\n" +
         package.version() + "\n" + package.arch();
}

void ListVulnerabilities(const ServiceDeps& deps, CallContext& context,
                         const v1::ListImageVulnerabilitiesRequest& request,
                         const Dispatcher::Finish<v1::ListImageVulnerabilitiesResponse>& finish) {
  using Response = v1::ListImageVulnerabilitiesResponse;
  const auto image = context.engine.FindImage(context.caller, request.image());
  const std::string tenant = context.caller.tenant_id;
  const std::string list = "vulnerabilities/" + (image.ok() ? (*image)->id : std::string()) + "/" +
                           std::to_string(static_cast<int>(request.severity()));
  const auto page = deps.cursors->PageOf(tenant, list, request);
  if (!image.ok() || !page.ok()) {
    const absl::Status status = image.ok() ? page.status() : image.status();
    context.turn.AfterCommit([finish, status](const absl::Status&) { finish(status); });
    return;
  }
  const std::string severity =
      request.severity() == v1::SEVERITY_UNSPECIFIED
          ? ""
          : ModelEnumName(v1::Severity_descriptor(), static_cast<int>(request.severity()));
  WithOutput<Response>(
      deps.scans, context, (*image)->id, finish,
      [cursors = deps.cursors, tenant, list, severity, page = *page](
          const Image&, const scan::v1::ScanOutput& output) -> absl::StatusOr<Response> {
        Response response;
        FillPage(
            page, static_cast<size_t>(output.findings_size()),
            [&](size_t i) { return KeyOf(output.findings(static_cast<int>(i))); },
            [&](const std::string& key) { return cursors->Make(tenant, list, key); },
            [&](size_t i) {
              const scan::v1::Finding& finding = output.findings(static_cast<int>(i));
              if (!severity.empty() && finding.severity() != severity) return false;
              ToMessage(output.inventory().distribution(), finding, response.add_vulnerabilities());
              return true;
            },
            &response);
        return response;
      });
}

absl::Status CheckQuery(const v1::ListPackagesRequest& request) {
  if (request.name().empty()) return ValidationError("name", "is required: the package's name");
  for (const auto& [field, text] :
       {std::pair<const char*, const std::string*>{"name", &request.name()},
        {"below", &request.below()},
        {"ecosystem", &request.ecosystem()}}) {
    if (text->size() > kMaxQueryBytes) return ValidationError(field, "is too long");
  }
  return absl::OkStatus();
}

std::string KeyOf(const PackageHit& hit) {
  return hit.image_id + "\n" + hit.name + "\n" + hit.version + "\n" + hit.ecosystem;
}

v1::ListPackagesResponse PackagesPage(const Cursors& cursors, const std::string& list,
                                      const PageSpec& page, const Caller& caller, Engine& engine,
                                      const ScanWork::Hits& hits) {
  v1::ListPackagesResponse response;
  FillPage(
      page, hits.size(), [&](size_t i) { return KeyOf(hits[i]); },
      [&](const std::string& key) { return cursors.Make(caller.tenant_id, list, key); },
      [&](size_t i) {
        const auto image = engine.FindImage(caller, hits[i].image_id);
        if (!image.ok()) return false;
        v1::PackageRow* row = response.add_packages();
        row->set_image_id((*image)->id);
        row->set_image_name((*image)->name);
        row->set_ecosystem(hits[i].ecosystem);
        row->set_name(hits[i].name);
        row->set_version(hits[i].version);
        if (!hits[i].source_name.empty()) row->set_source_name(hits[i].source_name);
        return true;
      },
      &response);
  return response;
}

void ListPackages(const ServiceDeps& deps, CallContext& context,
                  const v1::ListPackagesRequest& request,
                  const Dispatcher::Finish<v1::ListPackagesResponse>& finish) {
  const std::string list =
      "packages/" + request.name() + "\n" + request.below() + "\n" + request.ecosystem();
  const auto page = deps.cursors->PageOf(context.caller.tenant_id, list, request);
  absl::Status status = CheckQuery(request);
  if (status.ok()) status = page.status();
  if (status.ok() && deps.scans == nullptr) status = NoScans();
  if (!status.ok()) {
    context.turn.AfterCommit([finish, status](const absl::Status&) { finish(status); });
    return;
  }
  PackageQuery query{request.name(), request.below(), request.ecosystem()};
  deps.scans->FindPackages(
      std::move(query), [core = &context.core, cursors = deps.cursors, list, page = *page,
                         caller = context.caller, finish](absl::StatusOr<ScanWork::Hits> hits) {
        core->Post([=](Engine& engine, Turn& turn) {
          using Response = absl::StatusOr<v1::ListPackagesResponse>;
          const Response response =
              hits.ok() ? Response(PackagesPage(*cursors, list, page, caller, engine, *hits))
                        : Response(hits.status());
          turn.AfterCommit([finish, response](const absl::Status&) { finish(response); });
        });
      });
}

}  // namespace

void RegisterScanService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  dispatcher->For("bunker.v1.Scans.ScanImage").Register<v1::ScanImageRequest, v1::Image>(ScanImage);
  dispatcher->For("bunker.v1.Scans.GetImageSbom")
      .RegisterAsync<v1::GetImageSbomRequest, v1::Sbom>(
          [deps](CallContext& context, const v1::GetImageSbomRequest& request,
                 const Dispatcher::Finish<v1::Sbom>& finish) {
            WithOutput<v1::Sbom>(deps.scans, context, request.image(), finish, SbomOf);
          });
  dispatcher->For("bunker.v1.Scans.ListImageVulnerabilities")
      .RegisterAsync<v1::ListImageVulnerabilitiesRequest, v1::ListImageVulnerabilitiesResponse>(
          [deps](CallContext& context, const v1::ListImageVulnerabilitiesRequest& request,
                 const Dispatcher::Finish<v1::ListImageVulnerabilitiesResponse>& finish) {
            ListVulnerabilities(deps, context, request, finish);
          });
  dispatcher->For("bunker.v1.Scans.ListPackages")
      .RegisterAsync<v1::ListPackagesRequest, v1::ListPackagesResponse>(
          [deps](CallContext& context, const v1::ListPackagesRequest& request,
                 const Dispatcher::Finish<v1::ListPackagesResponse>& finish) {
            ListPackages(deps, context, request, finish);
          });
}

}  // namespace bunker::controller
