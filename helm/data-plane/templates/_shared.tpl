{{- /* The same file in both charts: names, labels, images and the parts of a pod. A test holds them together. */ -}}

{{- /* What app.kubernetes.io/name says. */ -}}
{{- define "tidegate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* What objects are called: the release's name, for Services begin with a letter and have no dot. */ -}}
{{- define "tidegate.fullname" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if and .Values.nameOverride (not .Values.fullnameOverride) (not (contains .Values.nameOverride .Release.Name)) -}}
{{- $name = printf "%s-%s" .Release.Name .Values.nameOverride -}}
{{- end -}}
{{- $name = replace "." "-" $name -}}
{{- if not (regexMatch "^[a-z]" $name) -}}{{- $name = printf "tidegate-%s" $name -}}{{- end -}}
{{- $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select: of (root, name). Quoted, for a release may be called `no` or 123. */ -}}
{{- define "tidegate.selectorOf" -}}
app.kubernetes.io/name: {{ .name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- /* All labels, of (root, name, more): where two places name one, `more` counts before commonLabels, and both before ours. */ -}}
{{- define "tidegate.labelsOf" -}}
{{- $ours := include "tidegate.selectorOf" . | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_") -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "tidegate" -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{ mergeOverwrite $ours (.root.Values.commonLabels | default dict) (.more | default dict) | toYaml }}
{{- end -}}

{{- define "tidegate.selector" -}}
{{ include "tidegate.selectorOf" (dict "root" . "name" (include "tidegate.name" .)) }}
{{- end -}}

{{- define "tidegate.labels" -}}
{{ include "tidegate.labelsAnd" (dict "root" .) }}
{{- end -}}

{{- /* The same, of (root, more). */ -}}
{{- define "tidegate.labelsAnd" -}}
{{ include "tidegate.labelsOf" (dict "root" .root "name" (include "tidegate.name" .root) "more" .more) }}
{{- end -}}

{{- define "tidegate.testSelector" -}}
{{ include "tidegate.selectorOf" (dict "root" . "name" (printf "%s-test" (include "tidegate.name" . | trunc 58))) }}
{{- end -}}

{{- /* A pod of `helm test` that runs Python, of (root, program, url, expected). */ -}}
{{- define "tidegate.test" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "tidegate.fullname" .root }}-test
  labels: {{- include "tidegate.labelsOf" (dict "root" .root "name" (printf "%s-test" (include "tidegate.name" .root | trunc 58))) | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  {{- include "tidegate.podHead" .root | nindent 2 }}
  securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 4 }}
  containers:
    - name: test
      image: {{ include "tidegate.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [python, -c, {{ .program | quote }}, {{ .url | quote }}, {{ .expected | quote }}]
      env: []
      resources: { requests: { cpu: 10m, memory: 32Mi }, limits: { memory: 128Mi } }
      securityContext: {{- toYaml .root.Values.securityContext | nindent 8 }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* An image of (root, image): a digest wins over the tag, global.imageRegistry over the image's own. */ -}}
{{- define "tidegate.imageOf" -}}
{{- with .root.Values.global.imageRegistry | default .image.registry -}}{{ . }}/{{- end -}}
{{ .image.repository }}
{{- if .image.digest -}}@{{ .image.digest }}{{- else -}}:{{ .image.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{- /* global.image is for charts that hold several of these, as the evaluation. */ -}}
{{- define "tidegate.image" -}}
{{ include "tidegate.imageOf" (dict "root" . "image" (mergeOverwrite (deepCopy .Values.image) (.Values.global.image | default dict))) }}
{{- end -}}

{{- define "tidegate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "tidegate.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- /* How every pod's spec begins. A Service called tidegate-rls would set TIDEGATE_RLS_PORT: no links to Services. */ -}}
{{- define "tidegate.podHead" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Where pods run, of (root, selector). */ -}}
{{- define "tidegate.placement" -}}
{{- $selector := .selector -}}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread.keys }}
  - maxSkew: 1
    topologyKey: {{ . | quote }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* A probe of (probe, path, port): the values' times, and their own way to ask where they name one. */ -}}
{{- define "tidegate.probe" -}}
{{- $own := or .probe.httpGet .probe.exec .probe.tcpSocket .probe.grpc -}}
{{- if $own -}}
{{ toYaml .probe }}
{{- else -}}
{{ toYaml (merge (dict "httpGet" (dict "path" .path "port" .port)) .probe) }}
{{- end -}}
{{- end -}}

{{- /* How many there are, of (root, name, replicas, autoscaling). Who scales decides: what runs now stays, for a field
       that a release takes away falls back to 1. Where no cluster is asked (helm template) the field is left out. */ -}}
{{- define "tidegate.replicas" -}}
{{- if not .autoscaling.enabled -}}
replicas: {{ .replicas }}
{{- else -}}
{{- with lookup "apps/v1" "Deployment" .root.Release.Namespace .name -}}
replicas: {{ int .spec.replicas }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What pods must follow, of (root, given, secrets): the chart's own secrets as given, others as the cluster has them now.
       Where no cluster is asked, only the former. */ -}}
{{- define "tidegate.checksum" -}}
{{- $all := list .given -}}
{{- $root := .root -}}
{{- range compact .secrets -}}
{{- $all = append $all (lookup "v1" "Secret" $root.Release.Namespace .).data -}}
{{- end -}}
{{ toJson $all | sha256sum }}
{{- end -}}

{{- /* Whom egress rules mean by "anywhere": pods, and every address but those of networkPolicy.blockedCIDRs. */ -}}
{{- define "tidegate.anywhere" -}}
{{- $four := list -}}{{- $six := list -}}
{{- range .Values.networkPolicy.blockedCIDRs -}}
{{- if contains ":" . -}}{{- $six = append $six . -}}{{- else -}}{{- $four = append $four . -}}{{- end -}}
{{- end -}}
- namespaceSelector: {}
- ipBlock: { cidr: 0.0.0.0/0, except: {{ toJson $four }} }
- ipBlock: { cidr: "::/0", except: {{ toJson $six }} }
{{- end -}}

{{- /* The port of a URL, or of host:port; else the scheme's. */ -}}
{{- define "tidegate.port" -}}
{{- $port := regexFind ":[0-9]+$" (regexReplaceAll "^[a-z+]+://([^/?#]*@)?([^/?#]*).*$" . "${2}") -}}
{{- if $port -}}{{ trimPrefix ":" $port }}
{{- else if regexMatch "^rediss?://" . -}}6379
{{- else if hasPrefix "https://" . -}}443
{{- else -}}80
{{- end -}}
{{- end -}}

{{- /* A setting's value: whole numbers as they are, not as 1e+06. */ -}}
{{- define "tidegate.word" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ printf "%.0f" . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* Alerts, of (root): with a link to their runbook where the values say where runbooks are. */ -}}
{{- define "tidegate.rules" -}}
{{- $rules := .Files.Get "files/rules.yaml" -}}
{{- with .Values.prometheusRule.runbooks -}}
{{ $rules | replace "RUNBOOKS" (trimSuffix "/" .) }}
{{- else -}}
{{ $rules | replace "runbook_url: RUNBOOKS" "runbook: docs/runbooks" }}
{{- end -}}
{{- end -}}
