{{- /* At most 52 characters: of a longer name a StatefulSet can make no pod, for its label has 11 more. */ -}}
{{- define "tidegate.store" -}}
{{ include "tidegate.fullname" . | trunc 46 | trimSuffix "-" }}-store
{{- end -}}

{{- define "tidegate.agent" -}}
{{ include "tidegate.fullname" . }}-agent
{{- end -}}

{{- define "tidegate.agentName" -}}
{{ .Values.nameOverride | default "tidegate" | trunc 57 | trimSuffix "-" }}-agent
{{- end -}}

{{- define "tidegate.agentSelector" -}}
{{ include "tidegate.selectorOf" (dict "root" . "name" (include "tidegate.agentName" .)) }}
{{- end -}}

{{- define "tidegate.agentLabels" -}}
{{ include "tidegate.labelsOf" (dict "root" . "name" (include "tidegate.agentName" .)) }}
{{- end -}}

{{- define "tidegate.storeName" -}}
{{ .Values.nameOverride | default "tidegate" | trunc 57 | trimSuffix "-" }}-store
{{- end -}}

{{- define "tidegate.storeSelector" -}}
{{ include "tidegate.selectorOf" (dict "root" . "name" (include "tidegate.storeName" .)) }}
{{- end -}}

{{- define "tidegate.storeLabels" -}}
{{ include "tidegate.labelsOf" (dict "root" . "name" (include "tidegate.storeName" .)) }}
{{- end -}}

{{- define "tidegate.storeSecret" -}}
{{ .Values.store.bundled.existingSecret | default (include "tidegate.store" .) }}
{{- end -}}

{{- /* Ports of an external store, as a JSON list. */ -}}
{{- define "tidegate.storePorts" -}}
{{- $external := .Values.store.external -}}
{{- $ports := list (int .Values.networkPolicy.externalStorePort) -}}
{{- if $external.url -}}{{- $ports = list (int (include "tidegate.port" $external.url)) -}}{{- end -}}
{{- range concat $external.sentinels $external.clusterNodes -}}
{{- $ports = append $ports (int (include "tidegate.port" .)) -}}
{{- end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{- /* Ports of what else a process of (root, settings) reaches, as a JSON list. */ -}}
{{- define "tidegate.egressPorts" -}}
{{- $ports := list (int (include "tidegate.port" .root.Values.controlPlane.url)) -}}
{{- with .settings.TRACES_URL -}}{{- $ports = append $ports (int (include "tidegate.port" .)) -}}{{- end -}}
{{- with .settings.LOAD_SERVERS -}}
{{- range splitList "," . -}}
{{- $ports = append $ports (int (include "tidegate.port" (regexReplaceAll "^[^=]*=" (trim .) ""))) -}}
{{- end -}}
{{- end -}}
{{- range .root.Values.networkPolicy.egressPorts -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{- /* What the schema cannot say: what must be given, and settings that need each other. All of it is said at once. */ -}}
{{- define "tidegate.requireRegion" -}}
{{- $wrong := list -}}
{{- if not .Values.region -}}
{{- $wrong = append $wrong "region: name the region, as the control plane knows it" -}}
{{- end -}}
{{- if not .Values.controlPlane.url -}}
{{- $wrong = append $wrong "controlPlane.url: where nodes reach the control plane, http(s)://host[:port]" -}}
{{- end -}}
{{- if not (or .Values.controlPlane.publicKey .Values.controlPlane.publicKeySecret) -}}
{{- $wrong = append $wrong "controlPlane.publicKey: the 64 hex digits that `tidegate signing-key` printed (or publicKeySecret)" -}}
{{- end -}}
{{- if not (or .Values.credential.existingSecret .Values.credential.value) -}}
{{- $wrong = append $wrong "credential.existingSecret: a secret with what POST /v1/regions/{region}/credentials answered (or value)" -}}
{{- end -}}
{{- $external := .Values.store.external -}}
{{- if .Values.store.bundled.enabled -}}
{{- if or $external.existingSecret $external.url -}}
{{- $wrong = append $wrong "store: either bundled.enabled or an external store, not both" -}}
{{- end -}}
{{- else if not (or $external.existingSecret $external.url) -}}
{{- $wrong = append $wrong "store.external: name an existingSecret, or give the url (or set store.bundled.enabled)" -}}
{{- end -}}
{{- if and (eq $external.shape "sentinel") (not (and $external.sentinels $external.masterName)) -}}
{{- $wrong = append $wrong "store.external: shape sentinel needs sentinels and masterName" -}}
{{- end -}}
{{- range $name, $tls := dict "node.tls" .Values.node.tls "agent.tls" .Values.agent.tls -}}
{{- if and $tls.clientCAKey (not $tls.existingSecret) -}}
{{- $wrong = append $wrong (printf "%s: clientCAKey is a key of existingSecret: name that" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $tls := dict "peers" .Values.peers "store.external" $external -}}
{{- if and $tls.clientCertificate (not $tls.tlsSecret) -}}
{{- $wrong = append $wrong (printf "%s: clientCertificate is in tlsSecret: name that" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $port := dict "node.healthPort" .Values.node.healthPort "service.port" .Values.service.port -}}
{{- if and $.Values.rls.enabled (eq (int $.Values.rls.port) (int $port)) -}}
{{- $wrong = append $wrong (printf "rls.port: is %s too" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- $wrong = append $wrong "ingress.host: name the host" -}}
{{- end -}}
{{- range $name, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range pick ($labels | default dict) "app.kubernetes.io/name" "app.kubernetes.io/instance" | keys | sortAlpha -}}
{{- $wrong = append $wrong (printf "%s: %s is set by the chart, for Services and policies find pods by it" $name .) -}}
{{- end -}}
{{- end -}}
{{- range .Values.ingress.paths -}}
{{- if regexMatch "^/+(metrics(/.*)?)?$" . -}}
{{- $wrong = append $wrong (printf "ingress.paths: %s exposes /metrics; name what is asked from outside, as /v1/" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- $wrong = append $wrong "autoscaling: minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n\n  %s\n\nSee values.yaml and docs/install-kubernetes.md; to try Tidegate with nothing set: helm/evaluation." (join "\n  " $wrong)) -}}
{{- end -}}
{{- end -}}
